"""MiniGPT pretrains small GPTs, tells you whether the run is healthy, and never loses your work."""

__version__ = "0.1.0"
