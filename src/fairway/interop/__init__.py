"""The field's own files and settings, read as ours."""
