"""The node agent: configuration, command line, supervision. trio only; never imported by dataplane.server."""
