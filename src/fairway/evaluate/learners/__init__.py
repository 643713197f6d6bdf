"""Ways to learn from text that was already priced: one class with `score` and `learn` each."""
