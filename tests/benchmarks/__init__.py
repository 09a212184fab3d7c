"""Benchmarks: each compares two ways in one run. ``python -m tests.benchmarks [NAME...]``, or ``make bench`` for all.

Each module has ``run(size) -> Finding``; ``measure`` holds the clocks, ``result`` what is written. pytest collects none
of them: ``test_benchmarks.py`` runs each at a tiny size and looks at what it computes, never at how long it takes.
"""
