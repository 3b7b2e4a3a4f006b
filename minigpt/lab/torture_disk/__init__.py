"""A disk that refuses at every place where it can: what a run loses then (nothing)."""
