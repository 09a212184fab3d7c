"""Damaged and crafted inputs of every kind: each is read, or refused with one clear error."""
