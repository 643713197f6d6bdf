"""A request for completions, as OpenAI's clients send it: read, checked, and every fault named."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fairway.generate.config import LEAST, GenerateConfig
from fairway.runtime.strict_json import parse_json
from fairway.serve.config import ServeConfig
from fairway.serve.errors import ApiError

MOST_LOGPROBS = 5
MOST_STOPS = 4
# What OpenAI's interface has and a model of ours does not: refused unless it changes nothing.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "suffix": (None, ""),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
}
Prompt = str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """prompts  texts, or ids of the model
    logprobs    number of alternatives to tell for each token; None tells nothing of tokens
    usage       end a stream with the number of tokens
    """

    model: str
    prompts: tuple[Prompt, ...]
    config: GenerateConfig
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    stream: bool = False
    usage: bool = False

    def config_of(self, sample: int) -> GenerateConfig:
        """Each sample has the seed after the one before."""
        return replace(self.config, seed=self.config.seed + sample)


def parse_json_body(body: bytes) -> dict[str, Any]:
    """ApiError, with status 400, for what is no JSON object."""
    try:
        parsed = parse_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ApiError(400, "the body is not a JSON object")
    return parsed


class _Fields:
    """Takes fields out of a JSON object; what is left over in the end is unknown."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.left = dict(fields)

    def take(self, name: str, default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
        value = self.left.pop(name, None)
        if value is None:
            return default
        if not fits(value):
            shown = json.dumps(value)
            raise ApiError(400, f"{name} is {shown:.80}; it must be {wanted}", param=name)
        return value

    def integer(self, name: str, default: Any, least: int, most: int) -> Any:
        def fits(value: Any) -> bool:
            return type(value) is int and least <= value <= most

        return self.take(name, default, fits, f"an integer from {least} to {most}")

    def number(self, name: str, default: Any, least: float, most: float) -> Any:
        def fits(value: Any) -> bool:
            return type(value) in (int, float) and least <= value <= most

        return self.take(name, default, fits, f"a number from {least:g} to {most:g}")

    def boolean(self, name: str) -> bool:
        return self.take(name, False, lambda value: type(value) is bool, "true or false")


def parse_request(
    fields: dict[str, Any], limits: ServeConfig, vocab_size: int
) -> CompletionRequest:
    """Raises ApiError, with status 400, for whatever is wrong with it."""
    given = _Fields(fields)
    if not isinstance(fields.get("model"), str):
        raise ApiError(400, "you must provide a model parameter", param="model")
    model = given.left.pop("model")
    for name, values in WITHOUT_EFFECT.items():
        if given.left.pop(name, None) not in values:
            raise ApiError(400, f"{name} is not offered by this server; leave it out", param=name)
    prompts = _prompts(given.left.pop("prompt", ""), vocab_size)
    n = given.integer("n", 1, 1, limits.max_choices)
    if n * len(prompts) > limits.max_choices:
        most = limits.max_choices
        raise ApiError(400, f"{n} x {len(prompts)} completions; {most} at most", param="n")
    given.take("best_of", n, lambda value: value == n, f"n, which is {n}")
    stream = given.boolean("stream")
    request = CompletionRequest(
        model=model,
        prompts=prompts,
        n=n,
        logprobs=given.integer("logprobs", None, 0, MOST_LOGPROBS),
        echo=given.boolean("echo"),
        stream=stream,
        usage=_stream_options(given, stream),
        config=_config(given, limits),
    )
    given.left.pop("user", None)
    if given.left:
        name = min(given.left)
        raise ApiError(400, f"unrecognized request argument supplied: {name:.80}", param=name)
    return request


def _config(given: _Fields, limits: ServeConfig) -> GenerateConfig:
    stop = given.take("stop", (), _is_stop, f"a text, or up to {MOST_STOPS} texts, none empty")
    seed = given.integer("seed", None, -(2**63), 2**63 - 1)
    try:
        return GenerateConfig(
            num_tokens=given.integer("max_tokens", 16, 0, limits.max_tokens),
            temperature=given.number("temperature", 1.0, 0, 2),
            top_p=given.number("top_p", 1.0, 0, 1) or LEAST,
            top_k=given.integer("top_k", None, 1, 1 << 20),
            min_p=given.number("min_p", 0.0, 0, 1) or None,
            repetition_penalty=given.number("repetition_penalty", 1.0, 0, 100),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            seed=secrets.randbits(31) if seed is None else seed % 2**62,
        )
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def _is_stop(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return (
        isinstance(texts, list)
        and len(texts) <= MOST_STOPS
        and all(isinstance(text, str) and text and _is_utf8(text) for text in texts)
    )


def _is_utf8(text: str) -> bool:
    """Whether it is text: JSON can spell halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stream_options(given: _Fields, stream: bool) -> bool:
    def fits(value: Any) -> bool:
        known = {"include_usage", "include_obfuscation"}
        return stream and isinstance(value, dict) and value.keys() <= known

    options = given.take("stream_options", {}, fits, "an object with include_usage, with stream")
    return options.get("include_usage") is True


def _prompts(value: Any, vocab_size: int) -> tuple[Prompt, ...]:
    """One text, several, ids of one, or ids of several."""
    if value is None:
        value = ""
    if isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ApiError(400, "prompt must be a text, ids, or a list of either", param="prompt")
    return tuple(_prompt(one, vocab_size) for one in value)


def _prompt(value: Any, vocab_size: int) -> Prompt:
    if isinstance(value, str):
        if not _is_utf8(value):
            raise ApiError(400, "prompt holds half a character, which is no text", param="prompt")
        return value
    if isinstance(value, list) and all(type(token) is int for token in value):
        wrong = [token for token in value if not 0 <= token < vocab_size]
        if wrong:
            said = f"{wrong[0]!r:.40} is no id of this model; they go from 0 to {vocab_size - 1}"
            raise ApiError(400, said, param="prompt")
        return tuple(value)
    raise ApiError(400, "prompt must be a text, ids, or a list of either", param="prompt")
