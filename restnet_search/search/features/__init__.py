"""Activations of frozen fronts, computed once for all who need them."""
