"""The ranks of one run."""
