"""Bytes that come back from the cloud, for readers and for good. See recalls.py."""
