"""What is worth keeping on a host: one module per kind of source, both halves in it."""
