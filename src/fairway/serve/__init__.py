"""A model behind OpenAI's completions, and a page of colours: `pip install fairway[serve]`."""
