"""Integers to few bytes and back: weight codes, text symbols, and general-purpose codecs."""
