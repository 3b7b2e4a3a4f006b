"""Where signals and events go, one sink a file; `protocol` says what a sink is."""
