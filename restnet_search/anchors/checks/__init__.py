"""Checks of an anchor before anything is trained: its tensors, its answers alone and in a batch, its accuracy."""
