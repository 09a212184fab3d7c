"""Anchors made ready (loaded, cut, placed), and hybrids assembled from them."""
