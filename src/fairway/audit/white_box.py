"""Probes of a predictor of ours, from the inside, where one call shows what a box hides.

A predictor is handed one chunk at a time, so its state before a chunk can be held and the chunk be
changed. Which text is walked, for how long, and what is asked of the files is in `artifact.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fairway.audit.findings import Finding, ProbeResult
from fairway.evaluate.chunks import Chunk, ChunkPlan, cut_chunk, read_chunks
from fairway.evaluate.predictor import Predictor, score_stream
from fairway.evaluate.timed import LearnsUntil
from fairway.proof.bitstream import in_step, read_in_step
from fairway.proof.reproducible import Checkpoints
from fairway.tokens.val_text import ValText

PRICE_TOLERANCE = 1e-3  # nats: one pass and one token at a time round differently
SUM_TOLERANCE = 1e-4


def fingerprint(*states: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of every tensor: equal for equal states, to the last bit."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in sorted(state.items()):
            raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


class Watched(LearnsUntil):
    """A predictor under observation; behaves as the one it holds.

    weights  the state of the model that the caller holds, if it has one
    looks    so many chunks, the first ones, at which scoring is watched for traces
    """

    def __init__(
        self,
        predictor: Predictor,
        num_tokens: int,
        weights: Callable[[], Mapping[str, Tensor]] = dict,
        looks: int = 3,
    ) -> None:
        super().__init__(predictor, learned_chunks=num_tokens)
        self.num_tokens, self.weights, self.looks = num_tokens, weights, looks
        self.out_of_order: list[str] = []
        self.traces: list[str] = []
        self.times_priced = np.zeros(num_tokens, np.int64)
        self.times_priced[0] = 1  # the first token is known to everybody
        self.scored: int | None = None
        self.watched = self.lessons = 0

    def score(self, chunk: Chunk) -> Tensor:
        plan = chunk.plan
        for window in plan.windows:
            unpriced = self.times_priced[window.start : window.score_from] == 0
            if unpriced.any():
                place = window.start + int(unpriced.argmax())
                self.out_of_order.append(
                    f"chunk {plan.index + 1} reads token {place} before its price is booked"
                )
            self.times_priced[window.score_from : window.stop] += 1
        self.scored = plan.index
        if self.watched >= self.looks:
            return self.predictor.score(chunk)
        self.watched += 1
        before = self._state()
        nats = self.predictor.score(chunk)
        if self._state() != before:
            self.traces.append(f"scoring chunk {plan.index + 1} changed the predictor's state")
        elif not torch.equal(self.predictor.score(chunk), nats):
            self.traces.append(f"scoring chunk {plan.index + 1} twice gave two prices")
        return nats

    def learn(self, chunk: Chunk) -> None:
        plan = chunk.plan
        if self.scored != plan.index:
            self.out_of_order.append(f"chunk {plan.index + 1} is learned from before it is priced")
        touched = [(w.start, w.stop) for w in plan.windows] + list(plan.spans)
        early = [b for b, e in touched if (self.times_priced[b:e] == 0).any()]
        if early:
            place = early[0] + int((self.times_priced[early[0] :] == 0).argmax())
            self.out_of_order.append(
                f"chunk {plan.index + 1} is learned from while token {place} has no price yet"
            )
        self.lessons += 1
        super().learn(chunk)

    def _state(self) -> str:
        return fingerprint(self.predictor.state_dict(), self.weights())

    def order_result(self) -> ProbeResult:
        """Score, then learn, and every target priced exactly once."""
        findings = [Finding(said, ("A10", "C1")) for said in self.out_of_order]
        wrong = np.flatnonzero(self.times_priced != 1)
        if len(wrong):
            place = int(wrong[0])
            times = int(self.times_priced[place])
            kind = "E8" if times > 1 else "E6"
            findings.append(Finding(f"token {place} was priced {times} times", (kind,)))
        priced = self.num_tokens - 1
        return ProbeResult(
            "order",
            not findings,
            f"{priced:,} targets priced once each, then learned from, in {self.lessons} lessons",
            tuple(findings[:4]),
            () if self.lessons else ("learning: the text walked holds no lesson",),
            {"targets": priced, "lessons": self.lessons},
        )

    def weights_result(self, untouched: bool) -> ProbeResult:
        """Scoring leaves no trace, and the model in the file is not the one that learns."""
        findings = [Finding(said, ("A6", "C-e")) for said in self.traces]
        if not untouched:
            findings.append(Finding("the evaluation changed the model that was loaded", ("A4",)))
        return ProbeResult(
            "frozen_weights",
            not findings,
            f"{self.watched} chunks priced twice, with equal prices and no trace",
            tuple(findings),
        )


def walk(
    predictor: Predictor, plans: Sequence[ChunkPlan], tokens: Tensor, target_bytes: Tensor
) -> Tensor:
    """Nats (n - 1,) float64 of tokens[1:], by the walk that scores."""
    nats = torch.full((len(tokens) - 1,), torch.nan, dtype=torch.float64)

    def book(chunk: Chunk, prices: Tensor) -> None:
        nats[positions(chunk.plan) - 1] = prices

    score_stream(predictor, read_chunks(plans, ValText(tokens, target_bytes, ())), book)
    return nats


def positions(plan: ChunkPlan) -> Tensor:
    """(num_targets,) int64: where each price of a chunk belongs in the stream."""
    runs = [torch.arange(window.score_from, window.stop) for window in plan.windows]
    return torch.cat(runs) if runs else torch.zeros(0, dtype=torch.long)


def changed_after(tokens: Tensor, cut: int, vocab_size: int, bos_id: int, seed: int) -> Tensor:
    """The text with every token from `cut` on replaced; documents begin where they did."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, vocab_size - bos_id - 1, (len(tokens) - cut,), generator=generator)
    edited, tail = tokens.clone(), tokens[cut:]
    other = (tail - bos_id - 1 + shift) % (vocab_size - bos_id - 1) + bos_id + 1
    edited[cut:] = torch.where(tail == bos_id, tail, other)
    return edited


def probe_chunk_causality(
    predictor: Predictor,
    plan: ChunkPlan,
    tokens: Tensor,
    vocab_size: int,
    bos_id: int,
    in_time: Callable[[], bool],
    seed: int,
    most: int = 200,
) -> tuple[list[Finding], int]:
    """Change what follows a cut inside a chunk, at many cuts; the state is held still."""
    no_bytes = torch.zeros(len(tokens) - 1, dtype=torch.long)
    places = positions(plan)
    honest = predictor.score(cut_chunk(plan, ValText(tokens, no_bytes, ())))
    generator = np.random.default_rng(seed)
    first, last = int(places.min()), int(places.max())
    cuts = generator.permutation(np.arange(first + 1, last + 1))[:most]
    findings: list[Finding] = []
    done = 0
    for cut in map(int, cuts):
        if not in_time():
            break
        edited = changed_after(tokens, cut, vocab_size, bos_id, seed + cut)
        nats = predictor.score(cut_chunk(plan, ValText(edited, no_bytes, ())))
        done += 1
        moved = ((nats != honest) & (places < cut)).nonzero()[:, 0]
        if len(moved):
            worst = moved[(nats - honest)[moved].abs().argmax()]
            gap = float((nats - honest)[worst].abs())
            said = (
                f"replacing tokens from {cut} on changed the price of token {int(places[worst])} "
                f"by {gap:.3g} nats, with the predictor in the same state"
            )
            findings.append(Finding(said, ("C1", "A10")))
            if len(findings) == 3:
                break
    return findings, done


@dataclass
class Distributions:
    """A source for the reading walk that knows the text and looks at every distribution."""

    tokens: Tensor
    sums: list[float] = field(default_factory=list)
    prices: dict[int, float] = field(default_factory=dict)

    def take(self, positions: Tensor, log_probs: Tensor) -> Tensor:
        taken = self.tokens[positions]
        self.sums += log_probs.exp().sum(dim=1).tolist()
        paid = -log_probs.gather(1, taken[:, None])[:, 0]
        self.prices.update(zip(positions.tolist(), paid.tolist(), strict=True))
        return taken


def probe_distributions(
    predictor: Predictor,
    plan: ChunkPlan,
    tokens: Tensor,
    rows: int,
    pad_to: int,
    in_time: Callable[[], bool],
    most: int = 512,
) -> ProbeResult:
    """Read a chunk token by token: whole distributions, which must charge what scoring charged."""
    no_bytes = torch.zeros(len(tokens) - 1, dtype=torch.long)
    claimed = predictor.score(cut_chunk(plan, ValText(tokens, no_bytes, ())))
    source, reader = Distributions(tokens), predictor.reader(plan)
    seen, unnoted = tokens.clone(), Checkpoints(1 << 62)
    for members in in_step(plan, rows, pad_to):
        if source.prices and (len(source.prices) >= most or not in_time()):
            break
        read_in_step(reader, plan, members, seen, source, unnoted)
    claims = dict(zip(positions(plan).tolist(), claimed.tolist(), strict=True))
    furthest = max(source.sums, key=lambda total: abs(total - 1.0))
    place = max(source.prices, key=lambda at: abs(source.prices[at] - claims[at]))
    gap = abs(source.prices[place] - claims[place])
    findings = []
    if not abs(furthest - 1.0) <= SUM_TOLERANCE:
        findings.append(Finding(f"a distribution over all tokens sums to {furthest:.6f}", ("C2",)))
    if not gap <= PRICE_TOLERANCE:
        findings.append(
            Finding(
                f"token {place} was scored at {claims[place]:.5f} nats; its distribution, before "
                f"the token is known, says {source.prices[place]:.5f}",
                ("C2", "A7"),
            )
        )
    return ProbeResult(
        "normalization",
        not findings,
        f"{len(source.prices):,} whole distributions sum to 1 within "
        f"{abs(furthest - 1.0):.1e} and give the scored price within {gap:.1e} nats",
        tuple(findings),
        (f"{len(claims) - len(source.prices):,} further positions of the chunk",)
        if len(source.prices) < len(claims)
        else (),
        {"positions": len(source.prices)},
    )
