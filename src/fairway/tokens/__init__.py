"""Bytes to ids, ids to shards and batches, and how many bytes an id is worth."""
