"""Utilities: of single checkpoints, of merges of two, of plans of several."""
