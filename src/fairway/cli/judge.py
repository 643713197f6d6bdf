"""Commands that judge: an audit of anybody's scorer or of a model, and the page of a run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer, No, open_model, print_text
from fairway.cli.words import (
    Count,
    File,
    MaybeCount,
    MaybeFile,
    MaybeFolder,
    MaybeSeconds,
    Names,
    Seconds,
)
from fairway.runtime.extras import extra

if TYPE_CHECKING:
    from fairway.audit.findings import AuditReport


def audit(
    subject: Annotated[str, Positional, arg(metavar="MODEL|FILE.py:FUNCTION")],
    data: Annotated[Path | None, Positional, arg(metavar="DATA")] = None,
    seconds: Seconds = 60.0,
    seed: Count = 0,
    probe: Names = (),
    cap_bytes: MaybeCount = None,
    eval_seconds: MaybeSeconds = None,
    vocab_size: MaybeCount = None,
    tokens: MaybeFile = None,
    num_bytes: MaybeCount = None,
    tokenizer: MaybeFile = None,
) -> Answer:
    """probe anybody's scorer, or a model of ours: FILE.py:FUNCTION --vocab-size V, or MODEL DATA

    Five questions that a legal score answers well, and of a model what only its inside can answer;
    exit 0 legal, 1 not, 2 could not run. A run that kept all but its clock or its cap is not
    illegal, but over time or over bytes: exit 1, too.

    Args:
        subject: the model file, or a scorer as FILE.py:FUNCTION: tokens (n,) -> nats (n-1,) or
            (nats, bytes)
        data: the prepared text that the model was trained and is scored on; none for a scorer
        seconds: time limit in seconds; the answer says what was left out for lack of time
        seed: decides at which places is probed; the same seed asks the same
        probe: more probes, functions of your own, each as package.module:name
        cap_bytes: of a model: largest size of the file in bytes; otherwise from the result.json
            beside the model, if there is one
        eval_seconds: of a model: seconds that the whole evaluation may take; otherwise as for
            --cap-bytes
        vocab_size: of a scorer: number of token ids
        tokens: of a scorer: .npy file of the token ids to score; otherwise some are made up
        num_bytes: of a scorer: bytes of the text that the tokens stand for; otherwise they are left
            unchecked
        tokenizer: of a scorer: the vocabulary of its tokens, in a file of any kind that `fairway
            bytes` takes, to count bytes token by token; otherwise none is counted
    """
    if seconds <= 0:
        raise ValueError(f"--seconds {seconds:g}: nothing is asked in no time")
    if ".py:" in subject or vocab_size is not None:
        _refuse("a model", subject, data=data, cap_bytes=cap_bytes, eval_seconds=eval_seconds)
        if vocab_size is None:
            raise ValueError(f"say how many token ids {subject} knows: --vocab-size V")
        from fairway.audit import run_audit

        return _verdict(
            run_audit(
                subject,
                vocab_size=vocab_size,
                tokens=tokens,
                num_bytes=num_bytes,
                tokenizer=tokenizer,
                seconds=seconds,
                seed=seed,
                probes=probe,
                progress=print_text,
            )
        )
    _refuse("a scorer", subject, tokens=tokens, num_bytes=num_bytes, tokenizer=tokenizer)
    if data is None:
        raise ValueError(
            f"name the data: fairway audit {subject} DATA; or a scorer: "
            f"fairway audit FILE.py:FUNCTION --vocab-size V"
        )
    return _audit_model(
        Path(subject),
        data,
        seconds=seconds,
        cap_bytes=cap_bytes,
        eval_seconds=eval_seconds,
        seed=seed,
        probes=probe,
    )


def _audit_model(
    model: Path,
    data: Path,
    *,
    seconds: float,
    cap_bytes: int | None,
    eval_seconds: float | None,
    seed: int,
    probes: Names,
) -> Answer:
    from fairway.audit.artifact import audit_artifact
    from fairway.tokens.shards import DataFolder

    folder = DataFolder(data)
    open_model(model)  # says where a plug-in is another one
    return _verdict(
        audit_artifact(
            model,
            folder,
            seconds=seconds,
            cap_bytes=cap_bytes,
            eval_seconds=eval_seconds,
            seed=seed,
            probes=probes,
            progress=print_text,
        )
    )


def _refuse(of: str, subject: str, **options: object) -> None:
    """ValueError where something was said that makes no sense of the subject."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        named = " and ".join("DATA" if n == "data" else f"--{n.replace('_', '-')}" for n in given)
        raise ValueError(f"{named}: that is for {of}, and {subject} is none")


def _verdict(report: "AuditReport") -> Answer:
    print(report.text(), file=sys.stderr)
    answer = report.to_json()
    if report.exit_status == 2:
        raise ValueError(str(answer.get("problem", "the scorer could not be run")))
    if report.exit_status:
        raise No(answer)
    return answer


def bytes_(
    vocabulary: Annotated[Path, Positional, arg(metavar="VOCABULARY")],
    text: Annotated[tuple[Path, ...], Positional, arg(metavar="FILE")] = (),
    claimed: MaybeFile = None,
    pattern: Annotated[str | None, arg(metavar="REGEX")] = None,
    field: Annotated[str, arg(metavar="NAME")] = "text",
) -> Answer:
    """how many bytes tokens stand for, and how wrongly they are counted: VOCABULARY [FILE...]

    What tokens decode to, shown by joining those of a text again, against the usual ways of
    counting and a table of yours: which ids are wrong, and by how much every score on that text is.
    Exit 1 where the table is wrong, or the tokens' bytes do not add up. Some vocabularies need
    `pip install 'fairway[bytes]'`.

    Args:
        vocabulary: a .tiktoken file, a Hugging Face tokenizer.json, a SentencePiece .model, or a
            model or tokenizer of ours
        text: files or folders of the text to count on, as `fairway prepare` reads them
        claimed: a table of the bytes of each id: .npy, .json, or a tensor in a .pt file
        pattern: how text is cut before merging, for a .tiktoken file; otherwise as cl100k_base does
        field: name of a document in JSON lines and Parquet
    """
    from fairway.audit.byte_audit import audit_bytes
    from fairway.audit.byte_table_file import read_byte_table
    from fairway.audit.vocabulary import open_vocabulary
    from fairway.prepare import read_documents

    table = None if claimed is None else read_byte_table(claimed)
    documents = read_documents(text, field=field) if text else None
    found = audit_bytes(open_vocabulary(vocabulary, pattern), documents, table)
    print("\n".join(found.lines()), file=sys.stderr)
    unsure = found.text is not None and not found.text.counted
    if unsure or (found.claimed is not None and not found.claimed.is_right):
        raise No(found.to_json())
    return found.to_json()


def report(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN")],
    out: File = Path("report.html"),
    pictures: MaybeFolder = None,
) -> Answer:
    """one page for one or several run folders: RUN...

    Writes one HTML file with everything in it.

    Args:
        runs: run folders; several are compared
        out: the HTML file to write
        pictures: folder to write every picture to as a PNG file, in a folder for each run
    """
    from fairway.pipeline.judging import write_page

    with extra("report", "a page"):
        from fairway.report.plots import save_pictures
        from fairway.report.run_folder import read_run

    if not runs:
        raise ValueError("name a run folder: fairway report RUN")
    if pictures is not None:
        for run in map(read_run, runs):
            save_pictures(run, pictures / run.name)
    return {"page": str(write_page(runs, out))}
