"""The frozen report: everything one search found, as plain values."""
