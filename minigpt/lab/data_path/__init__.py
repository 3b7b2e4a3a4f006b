"""What the way from text to batches costs: tokenizing, opening a huge corpus, waiting for a step's data."""
