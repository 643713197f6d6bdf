"""One long row of which attention keeps parts apart."""

import pytest
import torch

from fairway.model.gpt import GPT
from fairway.model.segments import Parts, Segments, document_segments
from fairway.recipes.registry import recipe, smoke

BLOCK, BLOCKS = 8, 4


def made(longest: int) -> tuple[GPT, torch.Tensor]:
    """The miniature of #1855, every weight alive, and a row in which documents begin."""
    torch.manual_seed(0)
    model = GPT(smoke(recipe("pr1855"), vocab_size=64).model).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.parts = Parts(block=BLOCK, longest=longest)
    tokens = torch.randint(2, 64, (1, BLOCKS * BLOCK))
    tokens[0, [3, 14, 15, 22]] = model.config.bos_id
    return model, tokens


@pytest.mark.parametrize("longest", [4, BLOCK])
def test_a_row_in_blocks_is_its_parts_each_alone(longest: int) -> None:
    model, tokens = made(longest)
    spans = document_segments(tokens[0], model.config.bos_id, longest)
    assert max(end - begin for begin, end in spans) == longest
    in_blocks = model.hidden(tokens)[0]
    segments = Segments.of(spans)
    model.parts = None
    alone = model.hidden(tokens, segments=segments)[segments.own]
    assert torch.allclose(in_blocks, alone, atol=2e-5)


def test_no_part_sees_another_and_no_position_its_future() -> None:
    model, tokens = made(BLOCK)
    begin, end = document_segments(tokens[0], model.config.bos_id, BLOCK)[1]
    edited = tokens.clone()
    edited[0, begin + 2] = 2 if tokens[0, begin + 2] != 2 else 3
    before, after = model.hidden(tokens)[0], model.hidden(edited)[0]
    changed = (before != after).any(-1).nonzero().flatten().tolist()
    assert changed[0] == begin + 2
    # One token on, smearing reads it, too, where no document begins.
    assert set(changed) <= set(range(begin + 2, end + 1))


def test_scoring_and_other_rows_are_not_cut() -> None:
    model, tokens = made(BLOCK)
    with torch.inference_mode():
        cut = model.hidden(tokens)
        whole = model.eval().hidden(tokens)
        model.parts = None
        assert torch.equal(model.hidden(tokens), whole)
        assert not torch.allclose(cut, whole)


def test_angles_are_those_of_the_place_in_the_part() -> None:
    """So a long row needs no long table, and never stretches one."""
    model, tokens = made(BLOCK)
    model.rope.train_context = BLOCK
    in_blocks = model.hidden(tokens)
    model.rope.train_context = None
    assert torch.equal(model.hidden(tokens), in_blocks)
