"""Dumb object stores for the files of a repository."""
