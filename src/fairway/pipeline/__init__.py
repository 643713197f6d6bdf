"""The picture in the README as one function; `story.py` tells it."""

from fairway.pipeline.scoring import ValText
from fairway.pipeline.story import run
from fairway.runtime.setup import Runtime, set_up

__all__ = ["Runtime", "ValText", "run", "set_up"]
