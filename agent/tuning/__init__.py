"""Kernel settings for an edge node: observe, plan, apply, verify, roll back.

settings.py is the table of what may be changed and why, planner.py decides (pure), knobs.py is the only module that
reads and writes the kernel's values, apply.py the only one that changes a machine. docs/tuning.md is for operators.
"""
