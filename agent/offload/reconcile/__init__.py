"""Mount, queue and cloud side by side: what one of them says otherwise than the others is told, or mended."""
