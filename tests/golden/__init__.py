"""Golden tables, and how they were made."""
