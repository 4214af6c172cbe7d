"""The on-disk format and every file-system call: blocking, loop-free, the only code that renames or fsyncs."""
