"""Figures, in the terminal and as PNG."""
