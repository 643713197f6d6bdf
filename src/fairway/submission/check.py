"""A folder that was handed in, judged: each question with its answer, and the mend where it is no.

Ours are judged fully, for each file has to agree with all others; with the text itself, the model
is scored anew as well. Of a folder of the field's it is said what can be known, see `published.py`.
Nothing in the folder is run.
"""

from collections.abc import Callable, Iterator

from fairway.runs.compare import compare
from fairway.runs.groups import Group
from fairway.runtime.limits import one_line
from fairway.submission.case import Answer, Case, Finding
from fairway.submission.figures import judge_audits, judge_scores
from fairway.submission.papers import (
    judge_bytes,
    judge_clocks,
    judge_code,
    judge_files,
    judge_logs,
    judge_models,
    judge_seeds,
    judge_selection,
)
from fairway.submission.proofs import judge_proofs

Question = Callable[[Case], Iterator[Finding]]


def judge(case: Case, base: Group | None = None, other: Group | None = None) -> list[Finding]:
    """Every question, in order. base, other: what it is to beat, and itself, as groups of runs."""
    found = [finding for question in QUESTIONS for finding in _answers(question, case)]
    return [*found, judge_significance(case, base, other)]


def _answers(question: Question, case: Case) -> Iterator[Finding]:
    """A file that cannot be read is an answer as well, and ends no other question."""
    try:
        yield from question(case)
    except ValueError as error:
        name = question.__name__.removeprefix("judge_")
        mend = "hand in the files of the runs, unchanged"
        yield Finding(name, "fail", one_line(error, 200), mend)


def exit_status(findings: list[Finding]) -> int:
    return int(any(finding.answer == "fail" for finding in findings))


def judge_significance(case: Case, base: Group | None, other: Group | None) -> Finding:
    if base is None or other is None:
        said = "nothing is named that it is to beat"
        return Finding("significance", "unknown", said, "name it with --against RUN...")
    found = compare(base, other, case.rules)
    said = " ".join(found.sentences)
    if found.verdict == "better":
        return Finding("significance", "pass", said)
    answer: Answer = "fail" if found.verdict == "not shown" else "unknown"
    return Finding("significance", answer, said, "a larger advantage, or more seeds")


QUESTIONS: tuple[Question, ...] = (
    judge_files,
    judge_code,
    judge_models,
    judge_bytes,
    judge_clocks,
    judge_seeds,
    judge_selection,
    judge_logs,
    judge_scores,
    judge_audits,
    judge_proofs,
)
