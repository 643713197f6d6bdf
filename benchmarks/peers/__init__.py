"""Yardsticks: what others do, written anew, for a benchmark to measure against."""
