"""Fewer operations for the same function: batch-norms and 1x1 stitch layers folded into their neighbors."""
