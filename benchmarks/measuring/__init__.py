"""What the benchmarks have in common: something to measure, and a way to tell what was found."""
