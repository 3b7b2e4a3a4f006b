"""The faults, by theme: one small class each. A file of your own works the same (`minigpt lab drill --faults DIR`)."""
