"""Weights and gradients of a checkpoint, layer by layer and by kind of matrix."""
