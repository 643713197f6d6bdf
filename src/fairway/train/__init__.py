"""Batches to weights: schedules, optimizers, and a loop that is an iterator of steps."""
