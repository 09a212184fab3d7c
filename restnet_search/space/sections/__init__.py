"""Sections of a search space: fields and checks that all share, and one module per part of the YAML file."""
