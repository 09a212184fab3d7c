"""Stitch points: which there are, what they cost, and which are candidates."""
