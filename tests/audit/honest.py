"""Scorers that keep the rules, each in a way somebody might mistake for a fault.

tokens (n,) int64 -> nats (n - 1,), entry i being those of tokens[i + 1]. The file stands alone, so
that any of them can be audited from the command line, with --vocab-size 32.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np

V = 32
BOS = 1
_rng = np.random.default_rng(11)
AFTER = _rng.normal(0, 1.3, (V, V))  # logits given the token before ...
SKIP = _rng.normal(0, 0.7, (V, V))  # ... and the one before that

PIECES = [
    "<pad>", "<s>", "</s>", "<unk>", "<0x0A>", "<0xC3>", "<0xA9>", "\u2581", "\u00e9",
    "\u2581\u00e9t\u00e9", "\u2581the", "\u2581of", "\u2581a", "\u2581and", "\u2581to", "\u2581in",
    "\u2581is", "\u2581it", "\u2581was", "\u2581for", "ing", "ed", "s", "er", "ly", "tion", ",",
    ".", "e", "n", "t", "al",
]  # fmt: skip


def model_logits(tokens: np.ndarray) -> np.ndarray:
    """Next-token logits (n - 1, V) of a small fixed model with a context of two tokens."""
    logits = AFTER[tokens[:-1]].copy()
    logits[1:] += SKIP[tokens[:-2]]
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def nats_of(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Pick the realized tokens out of (n - 1, V) log-probabilities."""
    return -log_probs[np.arange(len(tokens) - 1), tokens[1:]]


def plain(tokens: np.ndarray) -> np.ndarray:
    """A fixed model with a short context (track A)."""
    return nats_of(log_softmax(model_logits(tokens)), tokens)


def sliding(tokens: np.ndarray) -> np.ndarray:
    """Windows of 16 tokens, stride 4: the first two of a window know less than the rest."""
    nats = np.zeros(len(tokens) - 1)
    for score_from in range(0, len(nats), 4):
        start, stop = max(0, score_from - 12), min(score_from + 4, len(nats))
        window = tokens[start : stop + 1]
        nats[score_from:stop] = plain(window)[score_from - start :]
    return nats


def single_precision(tokens: np.ndarray) -> np.ndarray:
    """Everything in float32, as a GPU would."""
    return nats_of(log_softmax(model_logits(tokens).astype(np.float32)), tokens)


def half_precision_nats(tokens: np.ndarray) -> np.ndarray:
    """Correct nats rounded to float16 when returned: the sum is off by the rounding only."""
    return plain(tokens).astype(np.float16)


def bfloat_nats(tokens: np.ndarray) -> np.ndarray:
    """Correct nats rounded to bfloat16, eight bits of precision."""
    bits = plain(tokens).astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def gpu_rounding(tokens: np.ndarray) -> np.ndarray:
    """Sums in whatever order the threads finish: equal calls differ by 1e-6 nats."""
    return plain(tokens) + np.random.default_rng().normal(0, 1e-6, len(tokens) - 1)


def score_first_sgd(tokens: np.ndarray, rate: float = 0.5, decay: bool = False) -> np.ndarray:
    """Chunks of 16: score the chunk, then step a bias on the gradient of its loss (#549)."""
    logits, bias, nats = model_logits(tokens), np.zeros(V), []
    for begin in range(0, len(tokens) - 1, 16):
        chunk = tokens[begin : begin + 17]
        log_probs = log_softmax(logits[begin : begin + 16] + bias)
        nats.append(nats_of(log_probs, chunk))
        step = rate * (1 - begin / len(tokens)) if decay else rate
        seen = np.bincount(chunk[1:], minlength=V) / (len(chunk) - 1)
        bias = bias + step * (seen - np.exp(log_probs).mean(0))
    return np.concatenate(nats)


def length_aware_schedule(tokens: np.ndarray) -> np.ndarray:
    """The same with a rate that falls to zero over the stream: reads its length, not its text."""
    return score_first_sgd(tokens, rate=1.0, decay=True)


def per_document_adapter(tokens: np.ndarray) -> np.ndarray:
    """A bias that learns token by token within a document and is zeroed at its BOS (#77)."""
    logits, counts = model_logits(tokens), np.zeros(V)
    rows = np.empty_like(logits)
    for i, token in enumerate(tokens[:-1].tolist()):
        counts = np.zeros(V) if token == BOS else counts
        counts[token] += 1
        rows[i] = logits[i] + np.log1p(counts)
    return nats_of(log_softmax(rows), tokens)


def phased_global(tokens: np.ndarray) -> np.ndarray:
    """After every second document, learn from the documents already scored (#1610)."""
    starts = np.flatnonzero(tokens == BOS)
    pauses = [0, *starts[2::2].tolist(), len(tokens) - 1]
    logits, bias, nats = model_logits(tokens), np.zeros(V), np.zeros(len(tokens) - 1)
    for begin, stop in pairwise(pauses):
        nats[begin:stop] = nats_of(log_softmax(logits[begin:stop] + bias), tokens[begin : stop + 1])
        bias = 0.5 * np.log1p(np.bincount(tokens[1 : stop + 1], minlength=V))
    return nats


def exact_tilt(tokens: np.ndarray, boost: float = 2.0) -> np.ndarray:
    """What followed this pair last time is raised, all others lowered to match (#1514)."""
    log_probs = log_softmax(model_logits(tokens))
    last: dict[tuple[int, int], int] = {}
    stream = tokens.tolist()
    for i in range(1, len(stream) - 1):
        hint = last.get((stream[i - 1], stream[i]))
        if hint is not None:
            normalizer = np.log1p(np.exp(log_probs[i, hint]) * np.expm1(boost))
            log_probs[i, hint] += boost
            log_probs[i] -= normalizer
        last[stream[i - 1], stream[i]] = stream[i + 1]
    return nats_of(log_probs, tokens)


def cache_mixture(tokens: np.ndarray) -> np.ndarray:
    """A bigram cache over all V tokens, weighted by how often the context was seen."""
    probs = np.exp(log_softmax(model_logits(tokens)))
    counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(V))
    stream = tokens.tolist()
    for i, token in enumerate(stream[:-1]):
        seen = counts[token]
        total = seen.sum()
        if total:
            weight = total / (total + 3)  # known before the next token is
            probs[i] = (1 - weight) * probs[i] + weight * seen / total
        seen[stream[i + 1]] += 1
    return nats_of(np.log(probs), tokens)


def mixture_of_two(tokens: np.ndarray) -> np.ndarray:
    """Two models weighted by how well each did so far: a gate with foresight of nothing."""
    a, b = log_softmax(model_logits(tokens)), log_softmax(0.3 * AFTER[tokens[:-1]])
    cost_a = np.concatenate([[0.0], np.cumsum(nats_of(a, tokens))[:-1]])
    cost_b = np.concatenate([[0.0], np.cumsum(nats_of(b, tokens))[:-1]])
    weight = 1 / (1 + np.exp(np.clip(cost_a - cost_b, -50, 50)))[:, None]
    return nats_of(np.log(weight * np.exp(a) + (1 - weight) * np.exp(b)), tokens)


def causal_slot(tokens: np.ndarray) -> np.ndarray:
    """An offset fitted to the 24 tokens before a block of 16, then used on the block (A8)."""
    logits, nats = model_logits(tokens), []
    for begin in range(0, len(tokens) - 1, 16):
        offset = np.zeros(V)
        past = slice(max(0, begin - 24), begin)
        for _ in range(3 if begin else 0):
            seen = np.bincount(tokens[past.start + 1 : begin + 1], minlength=V) / (
                begin - past.start
            )
            offset += seen - np.exp(log_softmax(logits[past] + offset)).mean(0)
        block = tokens[begin : begin + 17]
        nats.append(nats_of(log_softmax(logits[begin : begin + 16] + offset), block))
    return np.concatenate(nats)


def smear_across_documents(tokens: np.ndarray) -> np.ndarray:
    """C-b: the last token of a document colours the next one's first. Disputed, yet causal."""
    logits = AFTER[tokens[:-1]].copy()
    logits[1:] += 0.8 * AFTER[tokens[:-2]]
    return nats_of(log_softmax(logits), tokens)


def certain(tokens: np.ndarray) -> np.ndarray:
    """Knows that a document mark is followed by the same token as last time, so sure that the
    cost rounds to 0; any other token there is dear. Free is not the same as not scored."""
    log_probs = log_softmax(model_logits(tokens))
    log_probs[tokens[:-1] == BOS] = np.log(1e-15 / V)
    known = 5
    for i in np.flatnonzero(tokens[:-1] == BOS):
        log_probs[i, known] = np.log1p(-1e-15)
        known = int(tokens[i + 1])
    return np.maximum(nats_of(log_probs, tokens).astype(np.float32), 0)


def impossible_pad(tokens: np.ndarray) -> np.ndarray:
    """Gives the pad token, which no text holds, probability zero: its nats are infinite."""
    logits = model_logits(tokens)
    logits[:, 0] = -np.inf
    return nats_of(log_softmax(logits), tokens)


def padded_documents(tokens: np.ndarray) -> np.ndarray:
    """Documents side by side in one float32 batch, padded to the longest.

    How long the longest is decides the shapes, hence how sums are rounded, and nothing else.
    """
    starts = [0, *(np.flatnonzero(tokens[1:] == BOS) + 1).tolist(), len(tokens)]
    spans = list(pairwise(starts))
    width = max(b - a for a, b in spans)
    rounding = np.float32(1 + 1e-7 * (width % 5))
    nats = np.zeros(len(tokens), dtype=np.float32)
    for a, b in spans:
        document = np.concatenate([tokens[a:b], tokens[b : b + 1]])
        if len(document) > 1:
            nats[a : a + len(document) - 1] = plain(document).astype(np.float32) * rounding
    return nats[:-1]


def knows_the_lengths(tokens: np.ndarray) -> np.ndarray:
    """C-d. Longest document first, each knowing how many tokens came before: lengths only."""
    starts = [0, *(np.flatnonzero(tokens[1:] == BOS) + 1).tolist(), len(tokens) - 1]
    spans = sorted(pairwise(starts), key=lambda span: span[0] - span[1])
    logits, nats, done = model_logits(tokens), np.zeros(len(tokens) - 1), 0
    for begin, stop in spans:
        cold = 1.0 - 0.3 / (1 + done)  # the adapters get warmer with every token read
        nats[begin:stop] = nats_of(log_softmax(cold * logits[begin:stop]), tokens[begin : stop + 1])
        done += stop - begin
    return nats


def document_logits(tokens: np.ndarray) -> np.ndarray:
    """`model_logits` of each document by itself: nothing is read across a mark."""
    logits = model_logits(tokens)
    opens = np.flatnonzero(tokens[1:-1] == BOS) + 1
    logits[opens] = AFTER[BOS]
    return logits


def document_spans(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Entries [begin, end) of each document; its last target is the mark of the next one."""
    starts = [0, *(np.flatnonzero(tokens[1:] == BOS) + 1).tolist(), len(tokens) - 1]
    return list(pairwise(starts))


def in_batches(tokens: np.ndarray, batches: list[list[tuple[int, int]]]) -> np.ndarray:
    """A bias learns after each batch of documents, which do not see each other."""
    logits, bias, nats = document_logits(tokens), np.zeros(V), np.zeros(len(tokens) - 1)
    seen = np.zeros(V)
    for batch in batches:
        for begin, end in batch:
            rows = log_softmax(logits[begin:end] + bias)
            nats[begin:end] = nats_of(rows, tokens[begin : end + 1])
        for begin, end in batch:
            seen += np.bincount(tokens[begin + 1 : end + 1], minlength=V)
        bias = 0.5 * np.log1p(seen)
    return nats


def longest_first(tokens: np.ndarray) -> np.ndarray:
    """Each document learns from all that are longer (#1530 and every record since)."""
    spans = sorted(document_spans(tokens), key=lambda span: span[0] - span[1])
    return in_batches(tokens, [[span] for span in spans])


def shortest_first(tokens: np.ndarray) -> np.ndarray:
    """Each document learns from all that are shorter."""
    spans = sorted(document_spans(tokens), key=lambda span: span[1] - span[0])
    return in_batches(tokens, [[span] for span in spans])


def batches_longest_first(tokens: np.ndarray) -> np.ndarray:
    """Two documents at a time, which do not see each other, longest batch first."""
    spans = sorted(document_spans(tokens), key=lambda span: span[0] - span[1])
    return in_batches(tokens, [spans[i : i + 2] for i in range(0, len(spans), 2)])


def last_document_first(tokens: np.ndarray) -> np.ndarray:
    """The stream's order turned round: lengths do not decide it, so it has to be told."""
    return in_batches(tokens, [[span] for span in document_spans(tokens)[::-1]])


def side_by_side(tokens: np.ndarray) -> np.ndarray:
    """All documents in step, 8 tokens of each, then one bias for all of them learns."""
    logits, bias, nats = document_logits(tokens), np.zeros(V), np.zeros(len(tokens) - 1)
    spans, seen = document_spans(tokens), np.zeros(V)
    for step in range(0, max(end - begin for begin, end in spans), 8):
        parts = [(b + step, min(b + step + 8, e)) for b, e in spans if b + step < e]
        for begin, end in parts:
            rows = log_softmax(logits[begin:end] + bias)
            nats[begin:end] = nats_of(rows, tokens[begin : end + 1])
        for begin, end in parts:
            seen += np.bincount(tokens[begin + 1 : end + 1], minlength=V)
        bias = 0.5 * np.log1p(seen)
    return nats


def bad_manners(tokens: np.ndarray) -> list[float]:
    """Prints, scribbles on its input and returns a list - and scores honestly."""
    nats = plain(tokens).tolist()
    print("scoring", len(tokens))
    tokens[:] = 0
    return nats


def with_bytes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States the bytes of each target by the field's rule."""
    sizes = np.array(
        [0 if i < 4 else 1 if p.startswith("<0x") else len(p.removeprefix("\u2581").encode())
         for i, p in enumerate(PIECES)]
    )  # fmt: skip
    marked = np.array([p.startswith("\u2581") for p in PIECES])
    return plain(tokens), sizes[tokens[1:]] + (marked[tokens[1:]] & (tokens[:-1] >= 4))


# Function -> the order of scoring that the audit is to find; all others score in stream order.
ORDERS = {
    "knows_the_lengths": "stream order",
    "longest_first": "longest first",
    "shortest_first": "shortest first",
    "batches_longest_first": "longest first, in 4 batches",
    "last_document_first": "an explicit order",
    "side_by_side": "stream order, up to 8 documents in step",
}
HONEST = (
    plain, sliding, single_precision, half_precision_nats, bfloat_nats, gpu_rounding,
    score_first_sgd, length_aware_schedule, per_document_adapter, phased_global, exact_tilt,
    cache_mixture, mixture_of_two, causal_slot, smear_across_documents, certain, impossible_pad,
    padded_documents, knows_the_lengths, longest_first, shortest_first, batches_longest_first,
    last_document_first, side_by_side, bad_manners, with_bytes,
)  # fmt: skip
