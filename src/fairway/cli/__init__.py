"""The command line: parse, look up, call, print. Nothing is decided here.

A command is one function in a file of what it is for, and its name in `COMMANDS` below:

    def shorten(model: Model, out: Out, words: Count = 10) -> Answer:
        '''one line for the list of commands: MODEL OUT

        What `fairway shorten --help` says beside it.

        Args:
            model: the model file
            out: the file to write
            words: number of words to keep
        '''
        from fairway.somewhere import what_it_calls  # here, so that help costs no PyTorch
        ...
        return {"words": 10}  # what --json prints

Its parameters are its options, and each has a help text: those annotated with `Positional` are
known by their place, and `cli/words.py` has the usual kinds with their metavars. A settings
dataclass whose module imports no PyTorch is a parameter too, `Annotated[Config, arg(name="")]`. A
trailing underscore is dropped (`import_`), others become hyphens (`lm_eval`: `fairway lm-eval`).
ValueError and OSError end it with status 2 and their text; `No` with status 1 and an answer.
Progress and words for people go to standard error; `shown` in `cli/answer.py` is a progress line.

Exit status: 0 done; 1 done, and the answer is no; 2 the user can mend it; 128 and the signal's
number where one stopped it, or nobody read on.
"""

import errno
import json
import os
import shlex
import signal
import sys
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from fairway.cli import files, judge, ledger, plans, recipes, record, runs, scores, share, text, use
from fairway.cli.answer import Answer, No
from fairway.cli.parsing import Asked, BadWords, ask, completion_script
from fairway.cli.signatures import Command
from fairway.runtime.launched import is_first_process
from fairway.runtime.version import VERSION


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Positional, arg(metavar="{bash,zsh,fish}")],
) -> Answer:
    """what makes a shell complete commands and options: bash, zsh or fish

    Prints a script: `fairway completion bash > ~/.local/share/bash-completion/completions/fairway`,
    `fairway completion zsh > _fairway` in a folder of your $fpath, or
    `fairway completion fish > ~/.config/fish/completions/fairway.fish`.

    Args:
        shell: the shell that is to read it
    """
    script = completion_script(COMMANDS, shell)
    print(script)
    return {"shell": shell, "script": script}


COMMANDS: tuple[Command, ...] = (
    runs.demo,
    text.prepare,
    text.fetch,
    recipes.recipes,
    plans.plan,
    runs.run,
    runs.seeds,
    runs.train,
    files.pack,
    files.import_,
    scores.score,
    scores.prove,
    scores.verify,
    judge.audit,
    judge.bytes_,
    judge.report,
    record.submit,
    record.check,
    ledger.runs,
    ledger.effects,
    use.tune,
    use.compress,
    use.decompress,
    use.generate,
    share.export,
    share.push,
    share.serve,
    share.lm_eval,
    completion,
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
RESUMABLE = ("demo", "run", "seeds", "train")
GO_ON = "to go on, give the same command again with --resume"
MANY_RANKS = ("demo", "run", "seeds", "train", "score")  # what torchrun may start


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    _require_streams()
    try:
        try:
            return _main(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough, as `head` does
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what they still hold must not fail at the end
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _require_streams() -> None:
    """Somewhere to write to, where the process was started with its streams closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _main(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"fairway {VERSION}")
        return 0
    try:
        asked = ask(COMMANDS, words)
    except BadWords as error:
        return _refused(error, "--json" in words)
    except ValueError as error:  # settings that refuse what they were given
        print(f"fairway: {error}", file=sys.stderr)
        if "--json" in words:
            _print_error(error, str(error), 2)
        return 2
    except SystemExit:  # a help text was shown
        return 0
    if asked.name not in MANY_RANKS or asked.all_options:
        return _answer(asked)
    from fairway.runtime.distributed import Ranks, supervised

    return supervised(lambda: _answer(asked), Ranks.from_env())


def _answer(asked: Asked) -> int:
    """Call the command, and print what it says."""
    try:
        if asked.plugins:
            from fairway.runtime.plugins import load_plugin

            for name in asked.plugins:
                load_plugin(name)
        answer, status = asked.call(), 0
    except No as no:
        answer, status = no.answer, 1
    except BrokenPipeError:
        raise
    except SystemExit:  # a help text was shown
        return 0
    except BadWords as error:
        return _refused(error, asked.json, asked.name)
    except (ValueError, OSError) as error:
        room = isinstance(error, OSError) and error.errno in NO_ROOM and asked.name in RESUMABLE
        hint = f"; what is finished is kept: make room, and {GO_ON}" if room else ""
        return _failed(asked, error, f"{error}{hint}", 2)
    except KeyboardInterrupt as stop:
        hint = "" if "--resume" in str(stop) or asked.name not in RESUMABLE else f"; {GO_ON}"
        status = 128 + getattr(stop, "signal", signal.SIGINT)
        return _failed(asked, stop, f"{str(stop) or 'interrupted'}{hint}", status)
    except Exception as error:  # ours to mend: the traceback says where
        if asked.json:
            _print_error(error, str(error), 1, asked.name)
        raise
    if asked.json and answer:  # ranks other than the first have nothing to say
        print(json.dumps(answer, default=str))
    return status


def _failed(asked: Asked, error: BaseException, message: str, status: int) -> int:
    print(f"fairway {asked.name}: {message}", file=sys.stderr)
    if add := getattr(error, "add", ""):  # what mends it, as a line to paste
        print(f"\n    {shlex.join(['fairway', *asked.words, add])}\n", file=sys.stderr)
    if asked.json:
        _print_error(error, message, status, asked.name)
    return status


def _refused(error: BadWords, as_json: bool, command: str | None = None) -> int:
    print(error.shown, file=sys.stderr, end="")
    if as_json:
        _print_error(error, str(error), 2, command)
    return 2


def _print_error(
    error: BaseException, message: str, status: int, command: str | None = None
) -> None:
    if is_first_process():  # one object, however many processes there are
        told = {"type": type(error).__name__, "message": message, "exit_status": status}
        print(json.dumps({"error": {"command": command} | told}))


if __name__ == "__main__":
    sys.exit(main())
