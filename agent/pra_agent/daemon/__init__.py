"""Scheduler, runner, journal and the composition root."""
