"""One frozen, typed description per run."""
