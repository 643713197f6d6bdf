"""Commands for a record: the folder that is handed in, and its judge."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer, No, print_text
from fairway.cli.words import MaybeFile, Seconds

RunFolders = Annotated[tuple[Path, ...], Positional, arg(metavar="RUN")]


def submit(
    runs: RunFolders,
    out: Annotated[Path, arg(metavar="DIR")],
    author: str = "",
    github_id: str = "",
    title: str = "",
    blurb: str = "",
    track: str = "10min_16mb",
    overwrite: bool = False,
) -> Answer:
    """the folder of a record: RUN... --out DIR

    Writes one script that holds all of the code and stands alone, submission.json, README.md,
    requirements.txt, and for each seed its log, model, result and proof. Runs that are no seeds of
    one thing, or not what their folders say, are refused. How many runs there were is told by
    runs.sqlite beside the run folders, which `fairway seeds` keeps.

    Args:
        runs: run folders, one for each seed
        out: the folder to write
        author: who hands it in
        github_id: account at GitHub
        title: of the submission; otherwise the recipe's name
        blurb: what is new, in a sentence
        track: the list that it is for
        overwrite: replace the folder that is there, once the new one is whole
    """
    from fairway.submission.folder import About
    from fairway.submission.folder import submit as write

    about = About(author=author, github_id=github_id, title=title, blurb=blurb, track=track)
    described = write(runs, out, about, overwrite=overwrite)
    print(f"{out}: fairway check {out} judges it", file=sys.stderr)
    return {"out": str(out), **described}


def check(
    folder: Annotated[Path, Positional, arg(metavar="DIR")],
    data: Annotated[Path | None, Positional, arg(metavar="DATA")] = None,
    rules: Annotated[str, arg(metavar="NAME")] = "parameter-golf",
    against: Annotated[tuple[Path, ...], arg(metavar="RUN")] = (),
    runs: MaybeFile = None,
    seconds: Seconds = 60.0,
) -> Answer:
    """judge the folder of a record, ours or one of the field's: DIR [DATA]

    Files, code, bytes, clocks, seeds, logs, score, audit, proof, significance: each is passed,
    failed with its mend, or unknown. Nothing in the folder is run. Exit status 0: nothing
    failed; 1: something did; 2: it cannot be judged.

    Args:
        folder: the folder that `fairway submit` wrote, or a record folder of the field's
        data: the prepared text; with it every model is scored and audited anew
        rules: the rules by which it is judged
        against: run folders of what it is to beat
        runs: the database of runs, in which it is looked up how many there were
        seconds: time limit in seconds of the new audit, which 0 leaves out, and of decoding each
            proof, which goes as far as its first checkpoint at least
    """
    from fairway.runs.rules import rule_set
    from fairway.submission.case import is_ours, read_case
    from fairway.submission.check import exit_status, judge
    from fairway.submission.published import judge_published
    from fairway.submission.standing import known_runs, standing_groups

    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}; `fairway submit RUN... --out DIR` makes one"
        )
    chosen = rule_set(rules)
    if is_ours(folder):
        from fairway.tokens.shards import DataFolder

        case = read_case(
            folder,
            rules=chosen,
            data=None if data is None else DataFolder(data),
            known=known_runs(folder, runs),
            seconds=seconds,
            progress=print_text,
        )
        findings = judge(case, *standing_groups(folder, against, runs))
    else:
        findings = judge_published(folder, chosen)
    width = max(len(finding.check) for finding in findings)
    for one in findings:
        mend = f" -> {one.mend}" if one.mend and one.answer != "pass" else ""
        print(f"{one.answer:8}{one.check:{width + 2}}{one.said}{mend}", file=sys.stderr)
    status = exit_status(findings)
    answer = {
        "folder": str(folder),
        "ours": is_ours(folder),
        "rules": chosen.name,
        "verdict": "refused" if status else "passed",
        "findings": [asdict(finding) for finding in findings],
    }
    if status:
        raise No(answer)
    return answer
