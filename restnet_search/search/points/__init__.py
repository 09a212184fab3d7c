"""Stitch points of a space, their costs, and the candidates among them."""
