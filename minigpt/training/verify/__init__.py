"""Whether all that a run wrote is still as it was written."""
