"""Latencies of other devices: what is sent there, the script that runs there, and what is read back."""
