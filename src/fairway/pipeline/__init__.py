"""The picture in the README as one function; `story.py` tells it."""

from fairway.pipeline.here import Here, set_up
from fairway.pipeline.scoring import ValText
from fairway.pipeline.story import run

__all__ = ["Here", "ValText", "run", "set_up"]
