"""The command line: parse, look up, call, print. Nothing is decided here.

Each command is a function whose annotations are its options (tyro); its imports stand inside it, so
that asking for help costs no PyTorch. Exit status: 0 done; 1 done, and the answer is no; 2 the user
can mend it; 128 and the signal's number where one stopped it, or
nobody read on.
"""

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Callable

from fairway.cli import build, judge, share, use
from fairway.cli.answer import Answer, No, take_values
from fairway.runtime.plugins import load_plugin

COMMANDS: dict[str, Callable[[list[str]], Answer]] = {
    command.__name__.rstrip("_"): command
    for command in (
        build.demo,
        build.prepare,
        build.fetch,
        build.recipes,
        build.run,
        build.train,
        build.pack,
        build.import_,
        judge.score,
        judge.prove,
        judge.verify,
        judge.audit,
        judge.report,
        use.tune,
        use.compress,
        use.decompress,
        use.generate,
        share.export,
        share.push,
    )
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
RESUMABLE = ("demo", "run", "train")
GO_ON = "to go on, give the same command again with --resume"
MANY_RANKS = ("demo", "run", "train", "score")  # what torchrun may start


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


def _main(argv: list[str]) -> int:
    try:
        plugins, argv = take_values("--plugin", argv)
    except ValueError as error:
        print(f"fairway: {error}", file=sys.stderr)
        return 2
    chosen, rest = _parser().parse_args(argv[:1]).command, argv[1:]

    def answered() -> int:
        return _answer(chosen, rest, plugins)

    if chosen in MANY_RANKS and not {"-h", "--help"} & set(rest):
        from fairway.runtime.distributed import Ranks, supervised

        return supervised(answered, Ranks.from_env())
    return answered()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fairway",
        description=__import__("fairway").__doc__,
        epilog="With any command: --json prints the answer as one JSON object, the last line of "
        "standard output. --plugin NAME, as often as needed, loads a class of your own before "
        "anything is read: package.module:Class, path/file.py:Class, or an installed entry point "
        "of the group fairway.plugins. No file makes fairway import anything by itself.",
    )
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.__doc__, add_help=False)
    return parser


def _answer(chosen: str, rest: list[str], plugins: list[str]) -> int:
    try:
        for name in plugins:
            load_plugin(name)
        answer, status = COMMANDS[chosen]([arg for arg in rest if arg != "--json"]), 0
    except No as no:
        answer, status = no.answer, 1
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        room = isinstance(error, OSError) and error.errno in NO_ROOM and chosen in RESUMABLE
        hint = f"; what is finished is kept: make room, and {GO_ON}" if room else ""
        print(f"fairway {chosen}: {error}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        hint = "" if "--resume" in str(stop) or chosen not in RESUMABLE else f"; {GO_ON}"
        print(f"fairway {chosen}: {str(stop) or 'interrupted'}{hint}", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    if "--json" in rest and answer:  # ranks other than the first have nothing to say
        print(json.dumps(answer, default=str))
    return status


if __name__ == "__main__":
    sys.exit(main())
