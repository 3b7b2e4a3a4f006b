"""Where text comes from: each source in its own file, all named in registry.py."""
