"""Readers of data sets: folders and tars, the published files of the literature, the embedded digits."""
