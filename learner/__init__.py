"""The learning side, and the entry."""
