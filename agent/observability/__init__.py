"""What the node tells about itself: health, metrics, status, and the admin endpoint that answers for them."""
