"""Weights to integers and scales, under ordered rules; nothing here knows of files."""
