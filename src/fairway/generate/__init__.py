"""Let a model write: a prompt in, bytes out as they come."""

from fairway.generate.sampling import GenerateConfig
from fairway.generate.writing import Written, generate, write, write_after

__all__ = ["GenerateConfig", "Written", "generate", "write", "write_after"]
