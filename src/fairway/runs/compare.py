"""Whether one group of runs is better than another by more than seeds and texts differ.

Two tests, side by side. Welch's over seeds asks about recipes: would other seeds say the same? It
needs several on each side. The paired one over documents asks about the models that were scored:
would other documents say the same? What makes a document hard makes it hard for both, so that it
finds small differences with one seed each, but it knows nothing of other seeds.

Nats per token mean the same on both sides only with one tokenizer, and bits per byte only on the
same text; where they do not, the comparison says so instead of giving a number.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from fairway.runs.documents import Documents, read_documents
from fairway.runs.groups import Group
from fairway.runs.rules import CHALLENGE, RuleSet
from fairway.runtime.strict_json import JsonObject

FEWEST_DOCUMENTS = 20  # the t-test over documents takes their mean for normal


class Advantage(NamedTuple):
    """How much better or worse, and its odds.

    difference      in nats per token of the base; negative is better
    standard_error  of it
    p_differs       two-sided: how often chance alone would differ as much
    p_beats         one-sided: how often an advantage of only the threshold would look like this
    """

    difference: float
    standard_error: float
    p_differs: float
    p_beats: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`other` against `base`.

    seeds         Welch's test; None where `refused` or `untested` says why
    documents     the paired test; None where `unpaired` says why
    num_documents of the paired test
    bits          difference of the means in bits per byte; None where refused
    threshold_bits  the threshold in bits per byte, with this tokenizer on this text
    refused       why there is nothing to compare at all
    untested      why there is no test over seeds
    unpaired      why there is no test over documents
    reservations  why the rules give no verdict, though there are figures
    """

    base: str
    other: str
    rules: RuleSet
    seeds: Advantage | None = None
    documents: Advantage | None = None
    num_documents: int = 0
    bits: float | None = None
    threshold_bits: float | None = None
    refused: str = ""
    untested: str = ""
    unpaired: str = ""
    reservations: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "better", "not shown", or "none": the rules do not allow one."""
        if self.refused or self.reservations or self.seeds is None:
            return "none"
        return "better" if self.seeds.p_beats < self.rules.significance else "not shown"

    @property
    def sentences(self) -> list[str]:
        """All of it in words, most important first."""
        if self.refused:
            return [f"{self.other} against {self.base}: {self.refused}."]
        said = [f"{self.other} against {self.base}: {self._difference()}."]
        if self.seeds is not None:
            said.append(f"Over seeds (Welch): {self._odds(self.seeds)}.")
        else:
            said.append(f"No test over seeds: {self.untested}.")
        if self.documents is not None:
            said.append(
                f"Over {self.num_documents:,} documents, these models, paired: "
                f"{self._odds(self.documents)}."
            )
        else:
            said.append(f"No test over documents: {self.unpaired}.")
        return [*said, self._judged()]

    def _difference(self) -> str:
        assert self.bits is not None
        side = "lower" if self.bits < 0 else "higher"
        text = f"{abs(self.bits):.5f} bits per byte {side}"
        if self.seeds is not None:
            text += f", {abs(self.seeds.difference):.5f} nats per token"
        return text

    def _odds(self, test: Advantage) -> str:
        error = f"{test.difference:+.5f} nats per token, standard error {test.standard_error:.5f}"
        return (
            f"{error}; p = {shown_p(test.p_differs)} that they do not differ, "
            f"p = {shown_p(test.p_beats)} that the advantage is at most {self._threshold()}"
        )

    def _threshold(self) -> str:
        bits = "" if self.threshold_bits is None else f" ({self.threshold_bits:.5f} bits per byte)"
        return f"{self.rules.threshold_nats:g} nats per token{bits}"

    def _judged(self) -> str:
        if self.verdict == "none":
            why = "; ".join(self.reservations) or self.untested
            return f"No verdict by the rules of {self.rules.name}: {why}."
        assert self.seeds is not None
        beats = "beats" if self.verdict == "better" else "does not beat"
        sign = "<" if self.verdict == "better" else "is not below"
        return (
            f"It {beats} the threshold of {self.rules.name}: "
            f"p = {shown_p(self.seeds.p_beats)} {sign} {self.rules.significance:g}."
        )

    def to_json(self) -> JsonObject:
        return {
            **asdict(self),
            "rules": asdict(self.rules),
            "seeds": self.seeds and self.seeds._asdict(),
            "documents": self.documents and self.documents._asdict(),
            "reservations": list(self.reservations),
            "verdict": self.verdict,
        }


def compare(base: Group, other: Group, rules: RuleSet = CHALLENGE) -> Comparison:
    """`other` against `base` by the rules; says what may not be compared, and what is missing.

    Raises ValueError where a run's file of documents is not its own.
    """
    told: dict[str, Any] = {"base": base.name, "other": other.name, "rules": rules}
    if base.group_id == other.group_id:
        return Comparison(**told, refused="they are seeds of one thing")
    one_tokenizer = base.records[0].text_id == other.records[0].text_id
    if base.num_bytes != other.num_bytes:
        sizes = f"{base.num_bytes:,} and {other.num_bytes:,} bytes"
        return Comparison(
            **told, refused=f"not the same validation text ({sizes}), so no score can be compared"
        )
    if not one_tokenizer and base.num_tokens == other.num_tokens:
        return Comparison(
            **told, refused="not the same validation text or tokenizer, though of one size"
        )
    if not one_tokenizer:
        told["untested"] = (
            f"not the same tokenizer ({base.num_tokens:,} and {other.num_tokens:,} tokens), so "
            f"nats per token mean two things"
        )
    seeds, untested = None, told.pop("untested", "") or _untested(base, other)
    if not untested:
        seeds = _welch(base.nats_per_token, other.nats_per_token, rules)
    paired = _paired(base, other, rules)
    documents, number = paired if isinstance(paired, tuple) else (None, 0)
    return Comparison(
        **told,
        seeds=seeds,
        documents=documents,
        num_documents=number,
        bits=other.mean - base.mean,
        threshold_bits=rules.threshold_nats * base.num_tokens / base.num_bytes / math.log(2),
        untested=untested,
        unpaired=paired if isinstance(paired, str) else "",
        reservations=tuple(_reservations(base, other, rules)),
    )


def _untested(base: Group, other: Group) -> str:
    if min(len(base.records), len(other.records)) < 2:
        return "it needs two seeds or more on both sides"
    if len(set(base.nats_per_token)) == 1 and len(set(other.nats_per_token)) == 1:
        return "all seeds of a side have the same score, so there is no spread to test against"
    return ""


def _reservations(base: Group, other: Group, rules: RuleSet) -> list[str]:
    found = [f"{group.name}: {words}" for group in (base, other) for words in group.reservations]
    for group in (base, other):
        if len(set(group.seeds)) < rules.num_seeds:
            found.append(f"{group.name} has {len(set(group.seeds))} of {rules.num_seeds} seeds")
    ours, theirs = (group.records[0].versions for group in (base, other))
    if ours != theirs:
        found.append("they were run by two versions")
    return found


def _welch(base: Sequence[float], other: Sequence[float], rules: RuleSet) -> Advantage:
    """Of nats per token; the two sides may vary differently."""
    from scipy.stats import ttest_ind  # a second that a report of one run should not pay

    def odds(ours: Sequence[float], alternative: str) -> float:
        found: Any = ttest_ind(ours, list(base), equal_var=False, alternative=alternative)
        return float(found.pvalue)

    shifted = [nats + rules.threshold_nats for nats in other]
    error = math.sqrt(sum(np.var(side, ddof=1) / len(side) for side in (base, other)))
    return Advantage(
        fmean(other) - fmean(base), error, odds(other, "two-sided"), odds(shifted, "less")
    )


def _paired(base: Group, other: Group, rules: RuleSet) -> tuple[Advantage, int] | str:
    """The test over documents and their number, or why there is none.

    The sample is one number for each document: what it costs the one side more than the other,
    the mean of its seeds on each. Its sum is the difference of the scores.
    """
    from scipy.stats import ttest_1samp

    sides = [_mean_documents(group) for group in (base, other)]
    missing = next((side for side in sides if isinstance(side, str)), None)
    if missing is not None:
        return missing
    ours, theirs = sides[1], sides[0]
    assert isinstance(ours, Documents)
    assert isinstance(theirs, Documents)
    if not np.array_equal(ours.bytes, theirs.bytes):
        return "their documents are not the same"
    number, tokens = len(ours.bytes), int(theirs.tokens.sum())
    if number < FEWEST_DOCUMENTS:
        return f"the text has {number} documents, and it needs {FEWEST_DOCUMENTS}"
    more = ours.learning - theirs.learning  # (D,) nats
    if not more.any():
        return "every document costs the same on both sides"
    beyond = more + rules.threshold_nats * theirs.tokens
    differs: Any = ttest_1samp(more, 0.0)
    beats: Any = ttest_1samp(beyond, 0.0, alternative="less")
    error = float(np.std(more, ddof=1)) * math.sqrt(number) / tokens
    found = Advantage(float(more.sum()) / tokens, error, float(differs.pvalue), float(beats.pvalue))
    return found, number


def _mean_documents(group: Group) -> Documents | str:
    """The mean of a group's seeds for each document, or why there is none."""
    held: list[Documents] = []
    for record in group.records:
        found = read_documents(record.folder, record.result)
        if not isinstance(found, Documents):
            return found.reason
        if held and not np.array_equal(found.bytes, held[0].bytes):
            return f"the documents of {record.folder} are not those of {group.records[0].folder}"
        held.append(found)
    frozen = np.mean([documents.frozen for documents in held], axis=0)
    learning = np.mean([documents.learning for documents in held], axis=0)
    return Documents(frozen, learning, held[0].tokens, held[0].bytes)


def shown_p(value: float) -> str:
    """
    >>> shown_p(0.0321), shown_p(0.0000004), shown_p(float("nan"))
    ('0.0321', '4e-07', 'undefined')
    """
    if math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"
