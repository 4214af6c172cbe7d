"""Tests that drive real, unmodified Azure clients against a running endpoint."""
