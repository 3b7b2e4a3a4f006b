"""How near the planned memory comes to what a training takes."""
