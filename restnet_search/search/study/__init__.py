"""The study of a search: ask for trials, train them, tell what they reached, and resume."""
