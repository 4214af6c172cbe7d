"""Recorded exchanges with the real service, played against the product."""
