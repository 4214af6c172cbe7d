"""Eviction: bytes that the cloud has leave the node, when a rule or the disk asks for it, and never before."""
