"""Byte-budgeted language models: train, pack, score, prove by decoding, audit, submit."""

__version__ = "0.1.0"
