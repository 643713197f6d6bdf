"""The picture in the README as one function; `story.py` tells it."""
