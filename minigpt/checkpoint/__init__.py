"""What exact resume needs, on disk."""
