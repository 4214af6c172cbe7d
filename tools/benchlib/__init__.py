"""The side-by-side benchmark behind `tools/bench`: blobedge, Azurite and nginx under the same load.

Guarantees: every peer gets the same core, the same client, the same requests and a disk without dirty
pages at the start of each timed run; runs are interleaved in rounds, so that drift of the machine hits
all peers alike; only medians are compared.

Rejected: a client library (azure-storage-blob costs more per request than the servers under test), and
one long run per peer (a noisy neighbour in the second minute then looks like a slow server).
"""
