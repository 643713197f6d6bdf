"""Let a model write: a prompt in, bytes out as they come."""

from fairway.generate.sampling import GenerateConfig
from fairway.generate.writing import generate, write

__all__ = ["GenerateConfig", "generate", "write"]
