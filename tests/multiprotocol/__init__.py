"""The same tree through two doors: Blob requests and plain file operations."""
