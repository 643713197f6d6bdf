"""How many operations of dense arithmetic a token costs in training."""

from fairway.model.gpt import GPT


def flops_per_token(model: GPT, context: int, *, loops: bool | None = None) -> float:
    """Of a forward and a backward pass: products with weights, and causal attention.

    loops  with the blocks of the model's loop run again; None: as it stands now
    """
    width, vocab = model.config.model_dim, model.config.vocab_size
    blocks = [
        sum(p.numel() for n, p in block.named_parameters() if n.endswith(".weight"))
        for block in model.blocks
    ]
    plan = model.plan if loops is None else model.looped_plan if loops else model.single_plan
    weights = sum(blocks[layer] for layer in plan.layers) + vocab * model.embed.embedding_dim
    return 6.0 * weights + 6.0 * len(plan.layers) * context * width
