"""A run on disk: its folder, its storage, its records, and the session that works on it."""
