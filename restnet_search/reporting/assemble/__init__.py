"""From records to the report: Pareto sets, picks, intervals, rank correlations. Pure functions."""
