"""The embedded text-to-image model: its weights, its card, and the scripts that made it."""
