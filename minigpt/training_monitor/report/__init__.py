"""A recorded run summed up for people and programs."""
