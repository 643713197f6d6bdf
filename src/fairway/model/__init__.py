"""Token ids to next-token logits: one forward pass to train, score, learn and decode with."""
