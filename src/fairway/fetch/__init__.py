"""The challenge's published shards, from the Hugging Face hub into a data folder."""
