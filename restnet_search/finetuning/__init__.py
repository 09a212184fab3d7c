"""Training of whole hybrids after the search: one by one, or all routes of an adaptive model on one set of weights."""
