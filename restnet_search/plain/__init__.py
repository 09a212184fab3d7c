"""Plain text that others can touch: JSON read within limits, numbers within bounds, names escaped for their target."""
