"""MiniGPT and what else a user could pick, training side by side: who is faster, by how much, how surely."""
