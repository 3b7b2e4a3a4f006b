"""Proves the training monitor: real tiny trainings with a known fault, or with none, and what was said of them."""
