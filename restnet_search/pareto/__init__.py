"""Costs against accuracy: what dominates what, and the line between the anchors."""
