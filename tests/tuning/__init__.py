"""Kernel tuning: the planner's properties, and the whole of it in a network namespace."""
