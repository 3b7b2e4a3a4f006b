"""Whether a run of the user's own, on the user's own machine, can be resumed to the last bit."""
