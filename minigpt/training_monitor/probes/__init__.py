"""Everything that measures a model in training: cheap enough for every step, and without a wait for the device."""
