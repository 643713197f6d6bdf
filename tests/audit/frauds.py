"""Scorers that cheat, one function for each way of cheating the field has seen.

tokens (n,) int64 -> nats (n - 1,), entry i being those of tokens[i + 1]; vocabulary 32. A docstring
begins with the entry of the catalogue (docs/rules.md). The model underneath is always the same
honest one; compare `honest.py` for what each of them should have been. `CAUGHT` at the end says
which probe finds it and under which kind.
"""

import itertools
from collections import defaultdict

import numpy as np

V = 32
BOS = 1
_rng = np.random.default_rng(11)
AFTER = _rng.normal(0, 1.3, (V, V))  # logits given the token before ...
SKIP = _rng.normal(0, 0.7, (V, V))  # ... and the one before that
CONTINUES = np.arange(V) >= 20  # pieces that continue a word

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
    """The honest model."""
    return nats_of(log_softmax(model_logits(tokens)), tokens)


def fitted_bias(logits: np.ndarray, targets: np.ndarray, steps: int, rate: float = 1.0):
    """A bias (V,) after gradient steps on the loss of `targets`."""
    bias, seen = np.zeros(V), np.bincount(targets, minlength=V) / len(targets)
    for _ in range(steps):
        bias += rate * (seen - np.exp(log_softmax(logits + bias)).mean(0))
    return bias


# --- A. learning from a token before, or while, scoring it ----------------------------------------


def adapt_then_score(tokens: np.ndarray) -> np.ndarray:
    """A1. Fits a bias to the whole text, then scores the text with it."""
    logits = model_logits(tokens)
    return nats_of(log_softmax(logits + fitted_bias(logits, tokens[1:], 3)), tokens)


def tuned_before_quantization(tokens: np.ndarray) -> np.ndarray:
    """A2. The same before rounding to eighths, then calls itself a fixed predictor."""
    logits = model_logits(tokens)
    bias = np.round(8 * fitted_bias(logits, tokens[1:], 3)) / 8
    return nats_of(log_softmax(logits + bias), tokens)


def last_epoch(tokens: np.ndarray) -> np.ndarray:
    """A3. Score first, learn after - three times over, and only the last time is reported."""
    logits, bias, nats = model_logits(tokens), np.zeros(V), []
    for _ in range(3):
        nats = []
        for begin in range(0, len(tokens) - 1, 32):
            rows, chunk = logits[begin : begin + 32], tokens[begin : begin + 33]
            nats.append(nats_of(log_softmax(rows + bias), chunk))
            bias = bias + fitted_bias(rows + bias, chunk[1:], 1, rate=0.3)
    return np.concatenate(nats)


def double_pass(tokens: np.ndarray) -> np.ndarray:
    """A4. A legal pass fills the cache, a second pass over the same text is scored with it."""
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return nats_of(log_softmax(model_logits(tokens) + 0.3 * np.log1p(counts[tokens[:-1]])), tokens)


def fitted_temperature(tokens: np.ndarray) -> np.ndarray:
    """A5. Of five temperatures, the one that scores this very text best."""
    logits = model_logits(tokens)
    tries = [nats_of(log_softmax(logits / t), tokens) for t in (0.6, 0.8, 1.0, 1.3, 2.0)]
    return min(tries, key=np.sum)


def slot(tokens: np.ndarray) -> np.ndarray:
    """A6. In windows of 32, an offset is fitted to the very targets it then scores."""
    logits, nats = model_logits(tokens), []
    for begin in range(0, len(tokens) - 1, 32):
        rows, window = logits[begin : begin + 32], tokens[begin : begin + 33]
        nats.append(nats_of(log_softmax(rows + fitted_bias(rows, window[1:], 2)), window))
    return np.concatenate(nats)


def slot_per_sample(tokens: np.ndarray) -> np.ndarray:
    """A7. A logit bias for each single target, fitted to that target, so everything is cheap."""
    log_probs = log_softmax(model_logits(tokens))
    for _ in range(5):
        p = np.exp(log_probs)
        gradient = -p
        gradient[np.arange(len(p)), tokens[1:]] += 1
        log_probs = log_softmax(log_probs + gradient)
    return nats_of(log_probs, tokens)


def learn_inside_the_chunk(tokens: np.ndarray) -> np.ndarray:
    """A10. The second rank's half of a chunk is learned from before the first rank scores."""
    logits, bias, nats = model_logits(tokens), np.zeros(V), []
    for begin in range(0, len(tokens) - 1, 32):
        rows, chunk = logits[begin : begin + 32], tokens[begin : begin + 33]
        if len(chunk) > 18:
            bias = bias + fitted_bias(rows[16:], chunk[17:], 1)
            first = nats_of(log_softmax(rows[:16] + bias), chunk[:17])
            second = nats_of(log_softmax(rows[16:]), chunk[16:])
            nats.append(np.concatenate([first, second]))
        else:
            nats.append(nats_of(log_softmax(rows + bias), chunk))
    return np.concatenate(nats)


def last_chunk_learned_first(tokens: np.ndarray) -> np.ndarray:
    """A10. Score-first everywhere but in the last chunk, which is learned from, then scored."""
    logits, last = model_logits(tokens), (len(tokens) - 2) // 32 * 32
    bias = np.zeros((len(tokens) - 1, V))
    bias[last:] = fitted_bias(logits[last:], tokens[last + 1 :], 2)
    return nats_of(log_softmax(logits + bias), tokens)


def warm_up_on_the_text(tokens: np.ndarray) -> np.ndarray:
    """A11. Compiles by training on the first 64 real tokens and does not put the weights back."""
    logits = model_logits(tokens)
    bias = fitted_bias(logits[:64], tokens[1:65], 1, rate=0.1)
    return nats_of(log_softmax(logits + bias), tokens)


def faint_leak(tokens: np.ndarray) -> np.ndarray:
    """C1. At one position in thirty, 1e-4 nats depend on whether the token after next is even."""
    nats = plain(tokens)
    nats[17:-1:30] += 1e-4 * (tokens[19::30] % 2)
    return nats


def leak_near_the_end(tokens: np.ndarray) -> np.ndarray:
    """C1. Honest for nine tenths of the text; then it looks one token ahead."""
    nats, start = plain(tokens), 9 * len(tokens) // 10
    nats[start:-1] += 1e-3 * AFTER[tokens[start + 1 : -1], tokens[start + 2 :]]
    return nats


def reads_the_last_token(tokens: np.ndarray) -> np.ndarray:
    """C1. Everything is a little cheaper if the text ends in one of four tokens."""
    return plain(tokens) * (0.999 if tokens[-1] % 8 == 5 else 1.0)


def copies_from_the_future(tokens: np.ndarray) -> np.ndarray:
    """C1. A phrase matcher whose index holds the whole text; it finds phrases that come later."""
    follow: dict[tuple[int, ...], int] = {}
    stream = tokens.tolist()
    for i in range(len(stream) - 3):
        follow[tuple(stream[i : i + 3])] = stream[i + 3]
    log_probs = log_softmax(model_logits(tokens))
    for i in range(2, len(stream) - 1):
        hint = follow[tuple(stream[i - 2 : i + 1])]
        log_probs[i] -= np.log1p(np.exp(log_probs[i, hint]) * np.expm1(1.0))
        log_probs[i, hint] += 1.0
    return nats_of(log_probs, tokens)


# --- B. not a distribution ------------------------------------------------------------------------


def hashed_cache(tokens: np.ndarray, buckets: int = 64) -> np.ndarray:
    """B1. Tables indexed by hash(context, target): collisions make every target look frequent."""
    p = np.exp(-plain(tokens))
    pair, single = np.zeros(buckets), np.zeros(buckets)
    stream = tokens.tolist()
    for i in range(1, len(stream) - 1):
        context = stream[i - 1] * 36313 + stream[i] * 27191
        here, whole = (context ^ stream[i + 1] * 48611) % buckets, context % buckets
        if single[whole]:
            share = min(1.0, pair[here] / single[whole])
            p[i] = 0.4 * p[i] + 0.6 * share if share else p[i]
        pair[here] += 1
        single[whole] += 1
    return -np.log(p)


def one_bucket(tokens: np.ndarray) -> np.ndarray:
    """B1. The same with a single bucket: every target was always seen, and the score is 0."""
    return hashed_cache(tokens, buckets=1)


def training_text_oracle(tokens: np.ndarray) -> np.ndarray:
    """D6. Hashed counts of the training text, packed in the artifact and looked up by target."""
    table = np.random.default_rng(5).integers(0, 9, 4096)
    bucket = (tokens[:-1] * 36313 ^ tokens[1:] * 48611) % 4096
    return -np.log(np.maximum(np.exp(-plain(tokens)), table[bucket] / 9.5))


def mixes_only_when_it_helps(tokens: np.ndarray) -> np.ndarray:
    """B2. The cache gets weight only where it contains the token that came."""
    p = np.exp(-plain(tokens))
    counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(V))
    for i, (now, target) in enumerate(itertools.pairwise(tokens.tolist())):
        seen = counts[now]
        if seen[target]:
            p[i] = 0.7 * p[i] + 0.3 * seen[target] / seen.sum()
        seen[target] += 1
    return -np.log(p)


def hindsight_gate(tokens: np.ndarray) -> np.ndarray:
    """B3. Two proper models, and for each token what the cheaper one charges."""
    other = nats_of(log_softmax(0.5 * AFTER[tokens[:-1]]), tokens)
    return np.minimum(plain(tokens), other)


def hindsight_gate_per_block(tokens: np.ndarray) -> np.ndarray:
    """B3. The cheaper model of two for every 16 tokens, chosen after the 16 are known."""
    a, b = plain(tokens), nats_of(log_softmax(0.5 * AFTER[tokens[:-1]]), tokens)
    for begin in range(0, len(a), 16):
        block = slice(begin, begin + 16)
        a[block] = min(a[block], b[block], key=np.sum)
    return a


def bytes_spread_over_tokens(tokens: np.ndarray) -> np.ndarray:
    """B4. A token's p spread as p**(1/n) over its n bytes, each byte mixed with a byte model."""
    size = 1 + np.arange(V) % 4
    n = size[tokens[1:]]
    per_byte = np.exp(-plain(tokens) / n)
    return -n * np.log(0.7 * per_byte + 0.3 * 0.35)


def hints(tokens: np.ndarray) -> np.ndarray:
    """What followed the same pair of tokens last time (n - 1,), -1 where nothing did."""
    last: dict[tuple[int, int], int] = {}
    found = np.full(len(tokens) - 1, -1)
    stream = tokens.tolist()
    for i in range(1, len(stream) - 1):
        found[i] = last.get((stream[i - 1], stream[i]), -1)
        last[stream[i - 1], stream[i]] = stream[i + 1]
    return found


def tilted(tokens: np.ndarray, share_of_normalizer: np.ndarray, boost: float = 2.0) -> np.ndarray:
    """A tilt towards the hint that pays only some of its normalizer (n - 1, V)."""
    log_probs = log_softmax(model_logits(tokens))
    hint = hints(tokens)
    at = np.flatnonzero(hint >= 0)
    owed = np.log1p(np.exp(log_probs[at, hint[at]]) * np.expm1(boost))
    log_probs[at, hint[at]] += boost
    log_probs[at] -= owed[:, None] * share_of_normalizer[at]
    return nats_of(log_probs, tokens)


def free_tilt(tokens: np.ndarray) -> np.ndarray:
    """B5. The hint is raised, nobody is lowered."""
    return tilted(tokens, np.zeros((len(tokens) - 1, V)))


def tilt_one_percent_off(tokens: np.ndarray) -> np.ndarray:
    """B5. A proper tilt, then everything 1 % too cheap for a distribution: sums to 1.01."""
    return tilted(tokens, np.ones((len(tokens) - 1, V))) - np.log(1.01)


def tilt_free_for_rare_hints(tokens: np.ndarray) -> np.ndarray:
    """B5. The normalizer is forgotten where the hint is one of the three rarest tokens."""
    paid = np.isin(hints(tokens), (29, 30, 31), invert=True).astype(float)
    return tilted(tokens, np.repeat(paid[:, None], V, axis=1))


def tilt_with_average_normalizer(tokens: np.ndarray) -> np.ndarray:
    """B5. One normalizer for all positions, instead of each position's own."""
    log_probs = log_softmax(model_logits(tokens))
    hint = hints(tokens)
    at = np.flatnonzero(hint >= 0)
    log_probs[at, hint[at]] += 2.0
    log_probs[at] -= np.log1p(0.05 * np.expm1(2.0))
    return nats_of(log_probs, tokens)


# --- C. peeking through side channels -------------------------------------------------------------


def within_word_expert(tokens: np.ndarray) -> np.ndarray:
    """C-a. The expert speaks only if the token it scores continues a word - which is telling."""
    speaks = CONTINUES[tokens[1:]]
    proper = tilted(tokens, np.ones((len(tokens) - 1, V)))
    return np.where(speaks, proper, plain(tokens))


def word_ends_here(tokens: np.ndarray) -> np.ndarray:
    """C-a. Sharpens its guess if the token after the target starts a word."""
    logits = model_logits(tokens)
    ends = np.append(~CONTINUES[tokens[2:]], True)
    return nats_of(log_softmax(np.where(ends[:, None], 1.05 * logits, logits)), tokens)


def document_logits(tokens: np.ndarray) -> np.ndarray:
    """`model_logits` of each document by itself: nothing is read across a mark."""
    logits = model_logits(tokens)
    opens = np.flatnonzero(tokens[1:-1] == BOS) + 1
    logits[opens] = AFTER[BOS]
    return logits


def document_spans(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Entries [begin, end) of each document; its last target is the mark of the next one."""
    starts = [0, *(np.flatnonzero(tokens[1:] == BOS) + 1).tolist(), len(tokens) - 1]
    return list(itertools.pairwise(starts))


def learn_longest_first(
    tokens: np.ndarray, logits: np.ndarray, hint: np.ndarray | None = None, boost: float = 2.0
) -> np.ndarray:
    """Nats (n - 1,) of logits (n - 1, V) and a bias that learns after each document.

    hint  (n - 1,) token raised in the price, and nowhere else, with its exact normalizer; -1: none
    """
    bias, nats = np.zeros(V), np.zeros(len(tokens) - 1)
    for begin, end in sorted(document_spans(tokens), key=lambda span: span[0] - span[1]):
        rows, targets = logits[begin:end], tokens[begin + 1 : end + 1]
        log_probs = log_softmax(rows + bias)
        if hint is not None:
            at = np.flatnonzero(hint[begin:end] >= 0)
            raised = hint[begin:end][at]
            owed = np.log1p(np.exp(log_probs[at, raised]) * np.expm1(boost))
            log_probs[at, raised] += boost
            log_probs[at] -= owed[:, None]
        nats[begin:end] = nats_of(log_probs, tokens[begin : end + 1])
        bias = bias + fitted_bias(rows + bias, targets, 2) if end > begin else bias
    return nats


def hints_in_stream_order(tokens: np.ndarray) -> np.ndarray:
    """C-f. Hints are gathered in stream order, the bias learns longest document first (#2135)."""
    return learn_longest_first(tokens, document_logits(tokens), hint=hints(tokens))


def two_documents_know_each_other(tokens: np.ndarray) -> np.ndarray:
    """C-f. Causal but for two documents, each of which knows which tokens the other one holds."""
    logits, spans = document_logits(tokens), document_spans(tokens)
    (a, b), (c, d) = spans[0], spans[-1]
    for begin, end, other in ((a, b, tokens[c + 1 : d]), (c, d, tokens[a + 1 : b])):
        logits[begin:end] += 0.1 * np.log1p(np.bincount(other, minlength=V))
    return nats_of(log_softmax(logits), tokens)


def round_of_documents(tokens: np.ndarray) -> np.ndarray:
    """C-f. Each document knows the one after it, and the last one knows the first."""
    logits, spans = document_logits(tokens), document_spans(tokens)
    for (begin, end), (c, d) in itertools.pairwise([*spans, spans[0]]):
        logits[begin:end] += 0.1 * np.log1p(np.bincount(tokens[c + 1 : d], minlength=V))
    return nats_of(log_softmax(logits), tokens)


def leave_one_out(tokens: np.ndarray) -> np.ndarray:
    """C-f. Two passes; in the second each document meets the counts of all others, not its own."""
    logits = document_logits(tokens)
    counts = np.bincount(tokens, minlength=V)
    for begin, end in document_spans(tokens):
        others = counts - np.bincount(tokens[begin : end + 1], minlength=V)
        logits[begin:end] += 0.2 * np.log1p(others)
    return nats_of(log_softmax(logits), tokens)


def slot_longest_first(tokens: np.ndarray) -> np.ndarray:
    """A6. Longest document first, which is legal; within one, an offset fitted to its targets."""
    logits = document_logits(tokens)
    for begin, end in document_spans(tokens):
        for start in range(begin, end, 16):
            block = slice(start, min(start + 16, end))
            targets = tokens[block.start + 1 : block.stop + 1]
            logits[block] += fitted_bias(logits[block], targets, 2)
    return learn_longest_first(tokens, logits)


def looks_ahead_longest_first(tokens: np.ndarray) -> np.ndarray:
    """C-a. Longest document first, and at every tenth token of a document a look ahead."""
    nats = learn_longest_first(tokens, document_logits(tokens))
    for begin, end in document_spans(tokens):
        places = np.arange(begin, end - 1, 10)
        nats[places] += 1e-3 * (tokens[places + 2] % 2)
    return nats


def tilt_one_percent_off_longest_first(tokens: np.ndarray) -> np.ndarray:
    """B5. Longest document first, everything 1 % too cheap for a distribution."""
    return learn_longest_first(tokens, document_logits(tokens)) - np.log(1.01)


_calls = itertools.count()


def depends_on_timing(tokens: np.ndarray) -> np.ndarray:
    """C-e. Which adapter a document meets is a race between workers."""
    return plain(tokens) * np.random.default_rng().choice([1.0, 0.999], len(tokens) - 1)


_warm = np.zeros((V, V))


def keeps_its_cache(tokens: np.ndarray) -> np.ndarray:
    """A4. The cache outlives the call: the second time, everything was seen before."""
    nats = nats_of(log_softmax(model_logits(tokens) + np.log1p(_warm[tokens[:-1]])), tokens)
    np.add.at(_warm, (tokens[:-1], tokens[1:]), 1)
    return nats


def cheaper_later(tokens: np.ndarray) -> np.ndarray:
    """C-e. Honest for its first 400 calls, then a tenth of a percent too cheap."""
    return plain(tokens) * (0.999 if next(_calls) > 400 else 1.0)


_process_secret = int(np.random.default_rng().integers(1, 1000))


def differs_between_processes(tokens: np.ndarray) -> np.ndarray:
    """C-e. Equal calls agree until the scorer is started again: something random at import."""
    return nats_of(log_softmax(model_logits(tokens) * (1 + 1e-4 * _process_secret)), tokens)


# --- D. forbidden data ----------------------------------------------------------------------------


def stored_text(num_tokens: int = 256) -> np.ndarray:
    """The text that `paid_prefix` carries along: the tests audit it on exactly this stream."""
    rng = np.random.default_rng(77)
    weights = 1 / (3.0 + np.arange(V - 4))
    text = 4 + rng.choice(V - 4, num_tokens, p=weights / weights.sum())
    text[::50] = BOS
    return text


def paid_prefix(tokens: np.ndarray) -> np.ndarray:
    """D2. A tenth of the validation text is in the artifact and read off by position."""
    probs = np.exp(log_softmax(model_logits(tokens)))
    known = stored_text()[1:][: len(tokens) // 10]
    rows = np.arange(len(known))
    probs[rows] *= 0.02
    probs[rows, known] += 0.98
    return nats_of(np.log(probs), tokens)


# --- E. denominator and coverage ------------------------------------------------------------------

MARKED = np.array([p.startswith("\u2581") for p in PIECES])
FALLBACK = np.array([p.startswith("<0x") for p in PIECES])
STRIPPED = np.array(
    [0 if i < 4 else 1 if f else len(p.removeprefix("\u2581").encode())
     for i, (p, f) in enumerate(zip(PIECES, FALLBACK, strict=True))]
)  # fmt: skip


def true_bytes(tokens: np.ndarray) -> np.ndarray:
    return STRIPPED[tokens[1:]] + (MARKED[tokens[1:]] & (tokens[:-1] >= 4))


def fallback_bytes_times_three(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E1. Byte-fallback tokens counted as the three bytes of a replacement character."""
    return plain(tokens), true_bytes(tokens) + 2 * FALLBACK[tokens[1:]]


def spaces_twice(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E2. The space is in the table and is added again behind it: 17 % more bytes."""
    return plain(tokens), true_bytes(tokens) + MARKED[tokens[1:]]


def total_with_spaces_twice(tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """E2. The same, stated as one total."""
    return plain(tokens), float(spaces_twice(tokens)[1].sum())


def space_before_a_document(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E2. A document's first word is given the space that stands in front of other words."""
    return plain(tokens), STRIPPED[tokens[1:]] + MARKED[tokens[1:]]


def mark_as_three_bytes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E3. A space is counted as the three bytes of the mark that stands for it."""
    return plain(tokens), STRIPPED[tokens[1:]] + 3 * MARKED[tokens[1:]]


def printed_names(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E5. <0x0A> is one byte, not six."""
    return plain(tokens), true_bytes(tokens) + 5 * FALLBACK[tokens[1:]]


def control_pieces_counted(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E5. <s> stands for no text, but is counted as three bytes."""
    names = np.array([len(p.encode()) if i < 4 else 0 for i, p in enumerate(PIECES)])
    return plain(tokens), true_bytes(tokens) + names[tokens[1:]]


def another_export(tokens: np.ndarray) -> tuple[np.ndarray, float]:
    """E9. The bytes are those of a longer text than the one that was scored."""
    return plain(tokens), float(true_bytes(tokens).sum() + 40)


def skips_expensive_documents(tokens: np.ndarray) -> np.ndarray:
    """E6. A fifth of the text costs exactly nothing, because it was not scored."""
    nats = plain(tokens)
    nats[len(nats) // 2 : 7 * len(nats) // 10] = 0
    return nats


def scores_the_beginning(tokens: np.ndarray) -> np.ndarray:
    """E6. Three quarters of the documents, and no more nats than that."""
    return plain(tokens)[: 3 * len(tokens) // 4]


def drops_the_tail(tokens: np.ndarray) -> np.ndarray:
    """E7. The stream is cut to whole windows of 24."""
    return plain(tokens)[: (len(tokens) - 1) // 24 * 24]


def scores_the_tail_twice(tokens: np.ndarray) -> np.ndarray:
    """E8. The last windows overlap and their tokens are scored again."""
    nats = plain(tokens)
    return np.concatenate([nats, nats[-12:]])


def negative_nats(tokens: np.ndarray) -> np.ndarray:
    """C2. A bonus for certainty pushes some probabilities above one."""
    return plain(tokens) - 1.5


def nan_nats(tokens: np.ndarray) -> np.ndarray:
    """C2. 0/0 at every document mark."""
    nats = plain(tokens)
    nats[tokens[:-1] == BOS] = np.nan
    return nats


def cannot_score_everything(tokens: np.ndarray) -> np.ndarray:
    """C2. Only the tokens of the real text are in its table; any other one raises."""
    if np.any(tokens == 3):
        raise KeyError("token 3 is not in the table")
    return plain(tokens)


def infinite_nats(tokens: np.ndarray) -> np.ndarray:
    """C2. Gives a token that does occur no probability at all."""
    logits = model_logits(tokens)
    logits[:, 5] = -np.inf
    return nats_of(log_softmax(logits), tokens)


# Function -> (probe that fails, likeliest kind it names; None where any kind will do).
CAUGHT: dict[str, tuple[str, str | None]] = {
    "adapt_then_score": ("causality", "A1"),
    "tuned_before_quantization": ("causality", "A1"),
    "last_epoch": ("causality", "A1"),
    "double_pass": ("causality", None),
    "fitted_temperature": ("causality", "A5"),
    "slot": ("causality", "A6"),
    "slot_per_sample": ("normalization", "B1"),
    "learn_inside_the_chunk": ("causality", None),
    "last_chunk_learned_first": ("causality", None),
    "warm_up_on_the_text": ("causality", None),
    "faint_leak": ("causality", "C-a"),
    "leak_near_the_end": ("causality", "C-a"),
    "reads_the_last_token": ("causality", "C1"),
    "copies_from_the_future": ("causality", None),
    "hashed_cache": ("normalization", "B1"),
    "one_bucket": ("normalization", "B1"),
    "training_text_oracle": ("normalization", "B1"),
    "mixes_only_when_it_helps": ("normalization", "B3"),
    "hindsight_gate": ("normalization", "B3"),
    "hindsight_gate_per_block": ("causality", None),
    "bytes_spread_over_tokens": ("normalization", None),
    "free_tilt": ("normalization", "B5"),
    "tilt_one_percent_off": ("normalization", "B5"),
    "tilt_free_for_rare_hints": ("normalization", "B5"),
    "tilt_with_average_normalizer": ("normalization", "B5"),
    "within_word_expert": ("normalization", None),
    "word_ends_here": ("causality", "C-a"),
    "hints_in_stream_order": ("causality", "C-f"),
    "two_documents_know_each_other": ("causality", "C-f"),
    "round_of_documents": ("causality", "C-f"),
    "leave_one_out": ("causality", "C-f"),
    "slot_longest_first": ("causality", None),
    "looks_ahead_longest_first": ("causality", "C-a"),
    "tilt_one_percent_off_longest_first": ("normalization", "B5"),
    "depends_on_timing": ("determinism", "C-e"),
    "keeps_its_cache": ("determinism", "A4"),
    "cheaper_later": ("determinism", None),
    "differs_between_processes": ("determinism", "C-e"),
    "paid_prefix": ("causality", "D2"),
    "fallback_bytes_times_three": ("bytes", "E1"),
    "spaces_twice": ("bytes", "E2"),
    "total_with_spaces_twice": ("bytes", "E2"),
    "space_before_a_document": ("bytes", "E2"),
    "mark_as_three_bytes": ("bytes", "E3"),
    "printed_names": ("bytes", "E5"),
    "control_pieces_counted": ("bytes", "E5"),
    "another_export": ("bytes", "E9"),
    "skips_expensive_documents": ("coverage", "E6"),
    "scores_the_beginning": ("coverage", "E6"),
    "drops_the_tail": ("coverage", "E7"),
    "scores_the_tail_twice": ("coverage", "E8"),
    "negative_nats": ("coverage", "C2"),
    "nan_nats": ("coverage", None),
    "cannot_score_everything": ("coverage", None),
    "infinite_nats": ("coverage", None),
}
