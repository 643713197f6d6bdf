"""What is generated follows the prompt, the seed and the model, however long it gets."""

import pytest
import torch

from fairway.artifact.loaded_model import LoadedModel
from fairway.generate import GenerateConfig, generate, write
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.tokenizer import ByteTokenizer, train_tokenizer


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.manual_seed(3)
    model = GPT(
        ModelConfig(
            vocab_size=260,
            model_dim=16,
            num_layers=2,
            attention=AttentionConfig(num_heads=2, num_kv_heads=1),
            train_context=16,
        )
    )
    torch.nn.init.normal_(model.embed.weight, std=0.5)
    return LoadedModel(model=model.eval(), tokenizer=ByteTokenizer())


def written(loaded: LoadedModel, prompt: bytes = b"once", **settings) -> bytes:
    return b"".join(generate(loaded, prompt, GenerateConfig(**settings)))


def test_the_seed_decides(loaded: LoadedModel) -> None:
    first = written(loaded, num_tokens=40, temperature=1.0, seed=1)
    assert first == written(loaded, num_tokens=40, temperature=1.0, seed=1)
    assert first != written(loaded, num_tokens=40, temperature=1.0, seed=2)


def test_temperature_zero_takes_the_likeliest_as_one_pass_sees_it(loaded: LoadedModel) -> None:
    text = written(loaded, num_tokens=8, temperature=0.0)
    ids = torch.tensor([1, *(byte + 4 for byte in b"once" + text)])
    with torch.inference_mode():
        likeliest = loaded.model(ids[None]).argmax(-1)[0]
    assert ids[5:].tolist() == likeliest[4 : 4 + len(text)].tolist()


def test_text_may_outgrow_the_context(loaded: LoadedModel) -> None:
    assert len(written(loaded, num_tokens=100, top_k=3)) > 16
    assert written(loaded, b"x" * 100, num_tokens=5) != b""


def test_it_comes_in_pieces_and_ends_with_the_document(loaded: LoadedModel) -> None:
    pieces = list(generate(loaded, b"", GenerateConfig(num_tokens=7, top_k=2)))
    assert len(pieces) <= 7
    with torch.no_grad():
        before = loaded.model.embed.weight[1].clone()
        loaded.model.embed.weight[1] = 100 * loaded.model.embed.weight[1]
    ends = [written(loaded, num_tokens=50, seed=seed) for seed in range(5)]
    with torch.no_grad():
        loaded.model.embed.weight[1] = before
    assert min(map(len, ends)) < 50


def test_the_writing_ends_before_a_stop_text(loaded: LoadedModel) -> None:
    whole = written(loaded, num_tokens=60, temperature=1.0, seed=4)
    stop = whole[20:23].decode("latin-1")
    assert all(ord(letter) < 128 for letter in stop) or not stop.isascii()
    shown = written(loaded, num_tokens=60, temperature=1.0, seed=4, stop=(stop,))
    assert whole.startswith(shown)
    assert stop.encode() not in shown


def test_each_token_comes_with_the_distribution_the_model_gave_it(loaded: LoadedModel) -> None:
    tokens = list(write(loaded, b"once", GenerateConfig(num_tokens=5, top_k=1)))
    for token in tokens:
        assert token.log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
        assert int(token.log_probs.argmax()) == token.token


@pytest.mark.parametrize("end", [[], [1]])  # for want of tokens, or with the document
def test_what_capitals_hold_back_at_the_end_is_not_lost(
    end: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CaseOps keeps what may be the beginning of an operator until it knows."""
    attention = AttentionConfig(num_heads=2, num_kv_heads=1)
    config = ModelConfig(
        vocab_size=290, model_dim=16, num_layers=2, attention=attention, train_context=16
    )
    tokenizer = train_tokenizer([b"The HARE and the Tree. " * 20], 290, "caseops")
    loaded = LoadedModel(model=GPT(config).eval(), tokenizer=tokenizer)
    drawn = iter([4 + ord("a"), 4 + 0xEE, 4 + 0x80, *end])
    monkeypatch.setattr("fairway.generate.writing.draw", lambda *_: next(drawn))
    assert written(loaded, b"the", num_tokens=3 + len(end)) == b"a\xee\x80"
