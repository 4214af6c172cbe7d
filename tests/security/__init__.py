"""The hostile stranger: attacks on a running endpoint, over real sockets, each with the answer that it must get."""
