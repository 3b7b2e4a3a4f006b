"""What a user could pick instead, each trained by the recipe of its own project."""
