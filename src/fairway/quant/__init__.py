"""Weights to integers and scales, under ordered rules; nothing here knows of bytes or files."""
