"""``results.json`` and ``pareto.csv`` of a run folder."""
