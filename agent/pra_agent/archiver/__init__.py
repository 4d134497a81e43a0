"""Capture to snapshot: what changed is read, cut, sealed and stored."""
