"""How long MiniGPT needs for the loss that a peer's recipe ends with, and what each part of its recipe is worth."""
