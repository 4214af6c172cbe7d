"""Offload: what this node holds goes to the cloud, through any disconnection, by the operator's rules."""
