"""The report in the terminal: rich renderables made from the frozen report alone."""
