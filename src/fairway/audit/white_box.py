"""Probes of a predictor of ours, from the inside, where one call shows what a box hides.

A predictor is handed one chunk at a time, so its state before a chunk can be held and the chunk be
changed. Which text is walked, for how long, and what is asked of the files is in `artifact.py`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fairway.audit.causality import try_edits
from fairway.audit.comparison import Comparison, Noise
from fairway.audit.findings import Finding, ProbeResult, found
from fairway.audit.model_scorer import positions
from fairway.audit.stream import BOS, Edit
from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk
from fairway.evaluate.clocked import LearnsFrom
from fairway.evaluate.predictor import Predictor
from fairway.proof.bitstream import in_step, read_in_step
from fairway.proof.reproducible import Checkpoints
from fairway.tokens.val_text import ValText

SCORE_TOLERANCE = 1e-3  # nats: one pass and one token at a time round differently
SUM_TOLERANCE = 1e-4
MOST_CUTS = 200  # of a chunk
MOST_DISTRIBUTIONS = 512
EXACT = Noise(0.0, 0.0)  # our predictors repeat themselves to the last bit

InTime = Callable[[], bool]


def fingerprint(*states: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of every tensor: equal for equal states, to the last bit."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


class ObservedPredictor(LearnsFrom):
    """A predictor under observation; behaves as the one it holds.

    weights  the state of the model that the caller holds, if it has one
    looks    so many chunks, the first ones, at which scoring is watched for traces
    told     (num_tokens,) bool, tokens that are known beforehand: document marks, where lengths
             of documents are told
    """

    def __init__(
        self,
        predictor: Predictor,
        num_tokens: int,
        weights: Callable[[], Mapping[str, Tensor]] = dict,
        looks: int = 3,
        told: np.ndarray | None = None,
    ) -> None:
        super().__init__(predictor)
        self.num_tokens, self.weights, self.looks = num_tokens, weights, looks
        self.out_of_order: list[str] = []
        self.traces: list[str] = []
        self.times_scored = np.zeros(num_tokens, np.int64)
        self.times_scored[0] = 1  # the first token is given
        self.told = np.zeros(num_tokens, bool) if told is None else told
        self.last_scored: int | None = None
        self.looked = self.lessons = 0

    def score(self, chunk: Chunk) -> Tensor:
        plan = chunk.plan
        for window in plan.windows:
            ahead = self._unknown(window.start, window.score_from)
            if ahead.any():
                place = window.start + int(ahead.argmax())
                self.out_of_order.append(
                    f"chunk {plan.index + 1} reads token {place} before it is scored"
                )
            self.times_scored[window.score_from : window.stop] += 1
        self.last_scored = plan.index
        if self.looked >= self.looks:
            return self.predictor.score(chunk)
        self.looked += 1
        before = self._state()
        nats = self.predictor.score(chunk)
        if self._state() != before:
            self.traces.append(f"scoring chunk {plan.index + 1} changed the predictor's state")
        elif not torch.equal(self.predictor.score(chunk), nats):
            self.traces.append(f"scoring chunk {plan.index + 1} twice gave different nats")
        return nats

    def learn(self, chunk: Chunk) -> None:
        plan = chunk.plan
        if self.last_scored != plan.index:
            self.out_of_order.append(f"chunk {plan.index + 1} is learned from before it is scored")
        touched = [(w.start, w.stop) for w in plan.windows] + list(plan.spans)
        early = [b for b, e in touched if self._unknown(b, e).any()]
        if early:
            place = early[0] + int(self._unknown(early[0], self.num_tokens).argmax())
            self.out_of_order.append(
                f"chunk {plan.index + 1} is learned from while token {place} is not scored yet"
            )
        self.lessons += 1
        super().learn(chunk)

    def _unknown(self, begin: int, end: int) -> np.ndarray:
        """(end - begin,) which tokens are neither scored by now nor told beforehand."""
        return (self.times_scored[begin:end] == 0) & ~self.told[begin:end]

    def _state(self) -> str:
        return fingerprint(self.predictor.state_dict(), self.weights())

    def order_result(self) -> ProbeResult:
        """Score, then learn, and every target scored exactly once."""
        findings = [Finding.of("learned before it was scored", text) for text in self.out_of_order]
        wrong = np.flatnonzero(self.times_scored != 1)
        if len(wrong):
            times = int(self.times_scored[wrong[0]])
            symptom = "too many nats" if times > 1 else "a token is never scored"
            findings.append(Finding.of(symptom, f"token {wrong[0]} was scored {times} times"))
        targets = self.num_tokens - 1
        return found(
            "order",
            f"{targets:,} targets scored once each, then learned from, in {self.lessons} lessons",
            findings[:4],
            () if self.lessons else ["learning: the text walked holds no lesson"],
            targets=targets,
            lessons=self.lessons,
        )

    def weights_result(self, untouched: bool) -> ProbeResult:
        """Scoring leaves no trace, and the model in the file is not the one that learns."""
        findings = [Finding.of("scoring leaves a trace", text) for text in self.traces]
        if not untouched:
            said = "the evaluation changed the model that was loaded"
            findings.append(Finding.of("the model in the file learned", said))
        summary = f"{self.looked} chunks scored twice, with equal nats and no trace"
        return found("frozen_weights", summary, findings)


def held_chunk(predictor: Predictor, plan: ChunkPlan) -> Callable[[np.ndarray], np.ndarray]:
    """tokens (n,) -> nats (n - 1,) of one chunk, 0 elsewhere, always from the same state."""
    places = positions(plan).numpy()

    def score(tokens: np.ndarray) -> np.ndarray:
        no_bytes = torch.zeros(len(tokens) - 1, dtype=torch.long)
        nats = np.zeros(len(tokens) - 1)
        with torch.inference_mode():
            text = ValText(torch.from_numpy(tokens), no_bytes, ())
            scored = predictor.score(cut_chunk(plan, text))
        nats[places - 1] = scored.cpu().numpy()
        return nats

    return score


def compare_inside_chunk(
    predictor: Predictor,
    plan: ChunkPlan,
    tokens: np.ndarray,
    vocab_size: int,
    in_time: InTime,
    seed: int,
) -> Comparison:
    """The black box's edits at many cuts inside one chunk; the predictor learns nothing meanwhile.

    Cuts stand at words, not at document marks: where documents begin is part of the plan.
    """
    score = held_chunk(predictor, plan)
    comparison = Comparison(score, tokens, score(tokens), EXACT, vocab_size)
    places = positions(plan).numpy()
    inside = np.arange(int(places.min()) + 1, int(places.max()) + 1)
    cuts = np.random.default_rng(seed).permutation(inside[tokens[inside] != BOS]).tolist()
    edits = [Edit(cut, len(tokens), "uniform", seed + cut) for cut in cuts[:MOST_CUTS]]
    try_edits(comparison, edits, lambda: not in_time())
    return comparison


@dataclass
class Distributions:
    """A source for the reading walk that knows the text and looks at every distribution."""

    tokens: Tensor
    sums: list[float] = field(default_factory=list)
    nats: dict[int, float] = field(default_factory=dict)

    def take(self, positions: Tensor, log_probs: Tensor) -> Tensor:
        taken = self.tokens[positions]
        self.sums += log_probs.exp().sum(dim=1).tolist()
        nats = -log_probs.gather(1, taken[:, None])[:, 0]
        self.nats.update(zip(positions.tolist(), nats.tolist(), strict=True))
        return taken


def probe_distributions(
    predictor: Predictor, plan: ChunkPlan, tokens: Tensor, rows: int, pad_to: int, in_time: InTime
) -> ProbeResult:
    """Read a chunk token by token: whole distributions, which must charge what scoring charged."""
    claimed = held_chunk(predictor, plan)(tokens.numpy())
    source, reader = Distributions(tokens), predictor.reader(plan)
    seen, no_checkpoints = tokens.clone(), Checkpoints(1 << 62)
    for members in in_step(plan, rows, pad_to):
        if source.nats and (len(source.nats) >= MOST_DISTRIBUTIONS or not in_time()):
            break
        read_in_step(reader, plan, members, seen, source, no_checkpoints)
    furthest = max(source.sums, key=lambda total: abs(total - 1.0))
    place = max(source.nats, key=lambda at: abs(source.nats[at] - claimed[at - 1]))
    gap = abs(source.nats[place] - claimed[place - 1])
    findings = []
    if not abs(furthest - 1.0) <= SUM_TOLERANCE:
        said = f"a distribution over all tokens sums to {furthest:.6f}"
        findings.append(Finding.of("a distribution does not sum to one", said))
    if not gap <= SCORE_TOLERANCE:
        said = (
            f"token {place} was scored at {claimed[place - 1]:.5f} nats; its distribution, before "
            f"the token is known, says {source.nats[place]:.5f}"
        )
        findings.append(Finding.of("the score is not that of the distribution", said))
    left = len(positions(plan)) - len(source.nats)
    return found(
        "normalization",
        f"{len(source.nats):,} whole distributions sum to 1 within "
        f"{abs(furthest - 1.0):.1e} and give the nats that were scored within {gap:.1e}",
        findings,
        [f"{left:,} further positions of the chunk"] if left else (),
        positions=len(source.nats),
    )
