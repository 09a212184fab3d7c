"""Benchmarks: each compares two ways in one run. ``python -m tests.benchmarks`` or ``make bench``; see README.md here."""
