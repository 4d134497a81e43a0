"""Metrics and the status page, fed by the journal."""
