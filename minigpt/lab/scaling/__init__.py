"""How the cost of a token grows with the steps, the depth, the width and the context."""
