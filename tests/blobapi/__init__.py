"""Tests of the pure protocol functions: no socket, no file, no clock."""
