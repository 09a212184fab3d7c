"""What a run keeps on disk: its folder, its storage and its records, and the session that works on it."""
