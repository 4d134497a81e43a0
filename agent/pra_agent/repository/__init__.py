"""The repository in restic's format v2."""
