"""The sidecar: a process of its own for what takes long and may fail (the cloud, the kernel's settings)."""
