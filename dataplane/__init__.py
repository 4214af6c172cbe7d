"""The request path: the Blob protocol, the store under it, and the uvloop server that joins them."""
