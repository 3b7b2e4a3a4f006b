"""Experiments that use training: they show what a part of MiniGPT is worth."""
