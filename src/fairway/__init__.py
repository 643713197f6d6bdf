"""Byte-budgeted language models: train, pack, score, prove by decoding, audit."""

__version__ = "0.1.0"
