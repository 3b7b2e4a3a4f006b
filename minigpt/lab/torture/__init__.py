"""Training killed at any instant, resumed, and compared with a run that nobody disturbed."""
