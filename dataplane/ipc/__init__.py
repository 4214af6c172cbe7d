"""What processes of one node say to each other: control messages and shared-memory slots."""
