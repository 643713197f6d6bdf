"""A model of ours as a folder that the Hugging Face library opens: `pip install fairway[hub]`."""
