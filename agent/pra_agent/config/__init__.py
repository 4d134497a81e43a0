"""YAML to frozen models, with errors that name file, line and key."""
