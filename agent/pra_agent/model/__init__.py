"""Values without I/O: ids, nodes, trees, snapshots, run records, events."""
