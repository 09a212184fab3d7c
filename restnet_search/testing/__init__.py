"""Conformance suites for implementations of your own, one module per interface; they need pytest."""
