"""Snapshot to files."""
