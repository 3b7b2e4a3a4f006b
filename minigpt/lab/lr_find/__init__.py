"""A learning rate for a configuration: a range test, a suggestion by a stated rule, and trainings that confirm it."""
