"""Saved networks compared with PyTorch's on real images, and the cut point from which on they differ."""
