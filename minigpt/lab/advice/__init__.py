"""Does following the monitor's advice help? Tiny runs with a fault, what they advise, and the runs that follow it."""
