"""The supervisor (trio): sockets, worker processes, restart policy. Everything it decides is decided in policy.py."""
