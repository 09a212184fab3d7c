"""A golden record: what small searches with fixed seeds and one thread reached, to the last bit of every stitch layer."""
