"""Fitting of anchors to the classes of the data: recipes, training, and what is kept of it."""
