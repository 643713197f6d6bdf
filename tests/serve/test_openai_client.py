"""OpenAI's own client gets what it expects, and the numbers are the model's."""

import math

import pytest

import fairway
from fairway.api.model import Model
from fairway.artifact.loaded_model import LoadedModel
from fairway.generate import GenerateConfig, generate

openai = pytest.importorskip("openai")
KINDS = ("bytes", "bpe", "caseops")
PROMPT = "The Hare ran"


def client_of(address: str, token: str = "none needed", **settings):
    settings = {"max_retries": 0, "timeout": 60} | settings
    return openai.OpenAI(base_url=f"{address}/v1", api_key=token, **settings)


def ask(address: str, **asked):
    return client_of(address).completions.create(**({"model": "tiny", "prompt": PROMPT} | asked))


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_is_what_generate_writes(addresses, models, kind: str) -> None:
    found = ask(addresses[kind], max_tokens=20, temperature=0.9, top_p=0.9, seed=3)
    config = GenerateConfig(num_tokens=20, temperature=0.9, top_p=0.9, seed=3)
    written = b"".join(generate(models[kind], PROMPT.encode(), config)).decode("utf-8", "replace")
    (choice,) = found.choices
    assert choice.text == written
    assert found.usage.prompt_tokens == len(models[kind].tokenizer.encode(PROMPT.encode()))
    assert found.usage.completion_tokens <= 20
    assert choice.finish_reason == ("length" if found.usage.completion_tokens == 20 else "stop")
    assert (found.model, found.object) == ("tiny", "text_completion")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("stop", [None, "e"])
def test_a_stream_says_the_same_in_pieces(addresses, kind: str, echo: bool, stop) -> None:
    asked = {"max_tokens": 30, "seed": 5, "n": 2, "logprobs": 2, "echo": echo, "stop": stop}
    whole = ask(addresses[kind], **asked)
    parts = list(ask(addresses[kind], **asked, stream=True, stream_options={"include_usage": True}))
    assert parts[-1].usage == whole.usage
    for index, choice in enumerate(whole.choices):
        mine = [c for part in parts for c in part.choices if c.index == index]
        assert "".join(c.text for c in mine) == choice.text
        assert [t for c in mine for t in c.logprobs.tokens] == choice.logprobs.tokens
        assert [o for c in mine for o in c.logprobs.text_offset] == choice.logprobs.text_offset
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]


def test_the_smallest_share_is_the_likeliest_token(addresses) -> None:
    asked = {"max_tokens": 12, "seed": 3}
    greedy = ask(addresses["bytes"], temperature=0, **asked).choices[0].text
    for settings in ({"top_p": 0}, {"top_p": 1e-9}, {"temperature": 1e-310}):
        settings = {"temperature": 2} | settings
        assert ask(addresses["bytes"], **settings, **asked).choices[0].text == greedy


def test_each_sample_has_the_seed_after_the_one_before(addresses) -> None:
    both = ask(addresses["bytes"], n=2, seed=7, max_tokens=12).choices
    alone = [ask(addresses["bytes"], seed=seed, max_tokens=12).choices[0] for seed in (7, 8)]
    assert [c.text for c in both] == [c.text for c in alone]
    assert both[0].text != both[1].text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [PROMPT, "größer als 3, said the HARE. " * 6])
def test_an_echo_tells_what_every_token_of_the_text_costs(addresses, models, kind, text) -> None:
    """As our own frozen score counts it, beyond the context of the model too."""
    (choice,) = ask(addresses[kind], prompt=text, echo=True, max_tokens=0, logprobs=1).choices
    score = Model(models[kind]).score(text, learn=False)
    assert choice.text == text
    nats = -math.fsum(choice.logprobs.token_logprobs)
    assert nats == pytest.approx(score.nats, rel=1e-5)
    assert len(choice.logprobs.tokens) == score.num_tokens
    for found, best in zip(
        choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert max(best.values()) >= found - 1e-6


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_offsets_find_each_token_in_the_text(addresses, kind: str) -> None:
    (choice,) = ask(addresses[kind], echo=True, max_tokens=25, logprobs=0, seed=1).choices
    assert choice.logprobs.top_logprobs is None
    places = zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
    for token, offset in places:
        assert token.startswith("bytes:") or choice.text.startswith(token, offset)


def test_a_stop_text_ends_it_before_and_is_not_shown(addresses) -> None:
    free = ask(addresses["bytes"], max_tokens=40, seed=2, temperature=1.2).choices[0].text
    stop = next(c for c in free if c.isascii() and c.isprintable())
    (choice,) = ask(
        addresses["bytes"], max_tokens=40, seed=2, temperature=1.2, stop=[stop, "never"], logprobs=0
    ).choices
    assert (choice.text, choice.finish_reason) == (free[: free.index(stop)], "stop")
    assert stop not in choice.logprobs.tokens


def test_prompts_are_texts_or_ids_one_or_many(addresses, models) -> None:
    loaded: LoadedModel = models["bpe"]
    ids = loaded.tokenizer.encode(PROMPT.encode()).tolist()
    asked = {"max_tokens": 8, "temperature": 0}
    text = ask(addresses["bpe"], **asked).choices[0].text
    for prompt in (ids, [loaded.model.config.bos_id, *ids]):
        assert ask(addresses["bpe"], prompt=prompt, **asked).choices[0].text == text
    many = ask(addresses["bpe"], prompt=[ids, ids], **asked, n=2)
    assert [c.text for c in many.choices] == [text] * 4
    assert many.usage.prompt_tokens == 2 * len(ids)
    assert ask(addresses["bpe"], prompt="", **asked).choices[0].finish_reason in ("length", "stop")
    assert ask(addresses["bpe"], prompt="hare " * 500, **asked).usage.prompt_tokens > 100


def test_models_are_listed_by_name(addresses, models) -> None:
    client = client_of(addresses["bpe"])
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is 'tiny'"):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError) as raised:
        ask(addresses["bpe"], model="other")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"top_p": "much"}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"prompt": ["a"] * 65}, "n"),
        ({"prompt": [[70, 304]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"best_of": 2}, "best_of"),
        ({"extra_body": {"prompts": "x"}}, "prompts"),
        ({"extra_body": {"stream_options": {"include_usage": True}}}, "stream_options"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(addresses, asked: dict, param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ask(addresses["bpe"], **asked)
    assert (raised.value.param, raised.value.type) == (param, "invalid_request_error")


def test_the_python_api_writes_the_same(addresses, models) -> None:
    assert fairway.load(models["bpe"].path).generate(PROMPT, num_tokens=9, seed=4)
    text = "".join(Model(models["bpe"]).generate(PROMPT, num_tokens=9, temperature=1.0, seed=4))
    assert ask(addresses["bpe"], max_tokens=9, seed=4).choices[0].text == text
