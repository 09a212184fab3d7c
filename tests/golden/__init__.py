"""A golden record: small searches with fixed seeds and one thread, to the last bit of every stitch layer."""
