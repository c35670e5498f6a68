"""Signals between checkpoints: weights, behaviour, features of pairs."""
