"""The uvloop side: connections, the disk pool, and one handler for each operation."""
