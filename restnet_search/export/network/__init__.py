"""A network that is exported: what it is made of, what it costs, and what the files of an export say of it."""
