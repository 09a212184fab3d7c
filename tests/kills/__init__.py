"""Searches that are killed at random moments, again and again, end as the undisturbed one."""
