"""Successive halving: candidates climb rungs, each dearer and surer, before any is trained in full."""
