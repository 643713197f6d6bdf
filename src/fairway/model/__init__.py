"""Token ids to next-token logits: one forward pass, for training, scoring, learning and decoding."""
