"""Wire-level tests: every operation over a real socket against the product as it is installed, and against Azurite."""
