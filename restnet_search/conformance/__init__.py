"""Proof that models are cut exactly: front and back against the whole, over every model family of timm."""
