"""A year of an edge node's life, with a clock, a mount and a cloud of our own, and everything that decides being real.

Real: the queue (SQLite in a file), the rules, states, setbacks, failures, pace and budget, the fuse, the link's
machine, the space modes, the verdict on eviction and its order. Not real: bytes (a content is a number), threads and
sockets. What the asynchronous parts do between the deciders is written down here once more, in sending.py and
freeing.py, as plain steps: the price of a clock that can be turned. The tests with Azurite are for those parts.

`python -m tests.simulation --seed N --days 365`; the same seed is the same year, to the last request.
"""
