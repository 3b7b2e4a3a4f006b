"""From text to batches: sources, tokenizer, shards, order, loader."""
