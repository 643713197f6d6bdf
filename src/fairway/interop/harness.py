"""lm-evaluation-harness asks, a model of ours answers: `pip install fairway[lm-eval]`.

The bits of a document come from the walk that scores (`evaluate/predictor.py`), read as the model
file says; so a task's `bits_per_byte` is what `fairway.load(MODEL).score(...)` says.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from torch import Tensor

from fairway.artifact.loaded_model import LoadedModel
from fairway.audit.model_scorer import walk
from fairway.evaluate.config import EvaluateConfig, make_predictor, plan_text
from fairway.evaluate.windows import Window
from fairway.generate import GenerateConfig, generate
from fairway.interop.harness_config import HarnessConfig
from fairway.proof.prove import evaluation_of
from fairway.tokens.val_text import ValText

MOST_LOGITS = 1 << 25  # of one forward pass
USUAL_TOKENS = 256  # that are written where a task does not say how many
# What a task calls a setting of ours. What else it may say ("do_sample") is read below.
SETTINGS = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
SETTINGS |= {"repetition_penalty": "repetition_penalty", "seed": "seed"}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class FairwayLM(TemplateLM):
    """A packed model as the harness knows models.

    A text is a document, opened by a BOS. A context and its continuation are cut into tokens
    together and then apart, as the harness does; where no token ends with the context, each is cut
    by itself, for the continuation's bytes are to be scored and no others.

    evaluate  how documents are scored by `loglikelihood_rolling`; None: as the file says
    learn     learn from what was scored of the same document; each document begins anew
    """

    def __init__(
        self, loaded: LoadedModel, evaluate: EvaluateConfig | None = None, *, learn: bool = False
    ) -> None:
        super().__init__()
        self.loaded = loaded
        self.max_length = loaded.model.config.train_context
        config = (evaluate or evaluation_of(loaded)).resolved(self.max_length)
        self.evaluate = config if learn else config.frozen()
        self._device = loaded.model.embed.weight.device

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document is the one that opens the next."""
        return self.loaded.model.config.bos_id

    @property
    def tokenizer_name(self) -> str:
        return f"fairway-{self.loaded.sha256[:16]}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results."""
        number = sum(parameter.numel() for parameter in self.loaded.model.parameters())
        return {"model_num_parameters": number, "model_sha": self.loaded.sha256}

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids of a text, a BOS before them unless told otherwise."""
        ids = self.loaded.tokenizer.encode(as_bytes(string)).tolist()
        return ids if add_special_tokens is False else [self.eot_token_id, *ids]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        spaces = len(context) - len(context.rstrip())
        context, moved = context[: len(context) - spaces], context[len(context) - spaces :]
        before = self.tok_encode(context)
        whole = self.tok_encode(context + moved + continuation)
        if whole[: len(before)] != before and self.loaded.tokenizer.lossless:
            return before, self.tok_encode(moved + continuation, add_special_tokens=False)
        pairs = zip(before, whole, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if shared == len(whole):
            raise ValueError(
                f"of {continuation!r:.60} the model's tokenizer keeps nothing to score"
            )
        return whole[:shared], whole[shared:]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Nats of continuations given contexts, negative, and whether each is what is likeliest."""
        for context, continuation in map(arguments, requests):
            if not continuation:
                raise ValueError(f"after the context {context!r:.60} comes no text to score")
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Nats of whole documents, negative; what their ends cost is not in it."""
        found = [-math.fsum(self._nats(as_bytes(arguments(r)[0]))) for r in requests]
        for request, logarithm in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, logarithm)
        return found

    def _nats(self, document: bytes) -> list[float]:
        text = ValText.of_documents([document], self.loaded.tokenizer)
        if not text.num_targets:
            return []
        predictor = make_predictor(self.loaded.model, self.evaluate)
        return walk(predictor, plan_text(self.evaluate, text), text).tolist()

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model adds to each context; where it is sampled, each has a seed of its own."""
        texts = []
        for number, request in enumerate(requests):
            prompt, asked = arguments(request)
            config = generation(asked, seed=number)
            written = b"".join(generate(self.loaded, as_bytes(prompt), config))
            texts.append(written.decode("utf-8", "replace"))
            self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        passes = [
            (number, torch.tensor(tokens[window.start : window.stop]), window.num_targets)
            for number, (_, context, continuation) in enumerate(requests)
            for tokens in [context + continuation]
            for window in self._windows(len(tokens), len(continuation))
        ]
        passes.sort(key=lambda each: -len(each[1]))
        sums, likeliest = [0.0] * len(requests), [True] * len(requests)
        while passes:
            vocabulary = self.loaded.model.config.vocab_size
            rows = max(1, MOST_LOGITS // (len(passes[0][1]) * vocabulary))
            batch, passes = passes[:rows], passes[rows:]
            for (number, _, _), (nats, greedy) in zip(batch, self._scored(batch), strict=True):
                sums[number] -= nats
                likeliest[number] &= greedy
        answers = list(zip(sums, likeliest, strict=True))
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def _windows(self, num_tokens: int, num_targets: int) -> list[Window]:
        """One that ends with the text, where it holds all targets; else stride by stride."""
        context, first = self.max_length, num_tokens - num_targets
        stride = num_targets if num_targets <= context else min(self.evaluate.stride, context)
        ends = range(first + stride, num_tokens + stride, stride)
        stops = [min(end, num_tokens) for end in ends]
        starts = [max(0, stop - 1 - context) for stop in stops]
        return [
            Window(start, end - stride, stop)
            for start, end, stop in zip(starts, ends, stops, strict=True)
        ]

    @torch.inference_mode()
    def _scored(self, batch: Sequence[tuple[int, Tensor, int]]) -> list[tuple[float, bool]]:
        """Nats of each row's last targets, and whether all are the likeliest; longest row first."""
        size = len(batch[0][1]) - 1
        inputs = torch.zeros((len(batch), size), dtype=torch.long)
        for row, (_, tokens, _) in enumerate(batch):  # what comes after its end, no row sees
            inputs[row, : len(tokens) - 1] = tokens[:-1]
        start = min(len(tokens) - 1 - targets for _, tokens, targets in batch)
        logits = self.loaded.model(inputs.to(self.device), start=start).cpu()
        answers = []
        for row, (_, tokens, targets) in zip(logits, batch, strict=True):
            stop = len(tokens) - 1 - start
            own, wanted = row[stop - targets : stop], tokens[-targets:]
            logs = own.double().log_softmax(-1).gather(1, wanted[:, None])
            answers.append((-float(logs.sum()), bool((own.argmax(-1) == wanted).all())))
        return answers


def arguments(request: Instance) -> tuple[Any, ...]:
    return request.args


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def generation(asked: dict[str, Any], seed: int = 0) -> GenerateConfig:
    """What a task says about writing, as settings of ours; ValueError names what is no such."""
    left = dict(asked)
    until = left.pop("until", None) or []
    lengths = [left.pop(name) for name in LENGTHS if left.get(name) is not None]
    sampled = left.pop("do_sample", None)
    settings = {SETTINGS[name]: left.pop(name) for name in SETTINGS if left.get(name) is not None}
    unknown = sorted(name for name in left if name not in LENGTHS and left[name] is not None)
    if unknown:
        known = ", ".join(["until", *LENGTHS, "do_sample", *SETTINGS])
        raise ValueError(f"a task asks for {', '.join(unknown)}; of writing, fairway knows {known}")
    temperature = float(settings.pop("temperature", 1.0 if sampled else 0.0))
    return GenerateConfig(
        num_tokens=int(lengths[0]) if lengths else USUAL_TOKENS,
        temperature=0.0 if sampled is False else temperature,
        stop=(until,) if isinstance(until, str) else tuple(until),
        **{"seed": seed} | settings,
    )


def run_tasks(loaded: LoadedModel, config: HarnessConfig) -> dict[str, Any]:
    """The harness's own results: `["results"][task]["bits_per_byte,none"]` and so on.

    Raises ValueError for a task that is not there, and for what a task asks that no model here can.
    """
    names = [name for each in config.tasks for name in each.split(",") if name]
    if not names:
        raise ValueError("name a task: --tasks NAME, as in --tasks wikitext")
    evaluate = evaluation_of(loaded)
    if config.stride is not None:
        evaluate = evaluate.resolved(loaded.model.config.train_context)
        evaluate = replace(evaluate, stride=config.stride)
    evaluate_tasks: Any = evaluator.simple_evaluate  # its decorator hides what it takes
    found = evaluate_tasks(
        FairwayLM(loaded, evaluate, learn=config.learn),
        tasks=names,
        task_manager=_known_tasks(names, config.include_path),
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        log_samples=False,
        bootstrap_iters=1000,
    )
    assert found is not None  # on the first process, which this is
    return dict(found)


def _known_tasks(names: Sequence[str], include_path: Path | None) -> TaskManager:
    """The user's own, or where they are not all that is asked for, the harness's thousands too."""
    if include_path is not None and not include_path.is_dir():
        raise ValueError(f"there is no folder {include_path}; --include-path names one with tasks")
    for defaults in (False, True):
        manager = TaskManager(include_path=include_path, include_defaults=defaults)
        known = manager.all_tasks
        missing = [name for name in names if name not in known and not Path(name).is_file()]
        if not missing:
            return manager
    close = get_close_matches(missing[0], known, n=1)
    raise ValueError(
        f"no task {missing[0]!r}{f'; did you mean {close[0]!r}?' if close else ''}; own tasks are "
        "found with --include-path FOLDER"
    )
