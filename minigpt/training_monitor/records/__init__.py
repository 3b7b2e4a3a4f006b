"""Readers of training records, ours and other people's: each a file and a line in the registry."""
