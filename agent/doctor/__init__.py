"""`blobedge doctor`: what is wrong with this node, and the command or setting that mends it."""
