"""What changed, told by the workers to whoever copies it elsewhere: append-only segments on the node's own disk."""
