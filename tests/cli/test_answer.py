"""What is taken out of a command's words, and what is said where a word is missing."""

import pytest

from fairway.cli.answer import print_text, take_settings, take_values, two_paths
from fairway.evaluate.config import EvaluateConfig


def test_values_are_taken_in_either_form_and_the_rest_is_left() -> None:
    argv = ["a", "--set", "x=1", "b", "--set=y=2", "--settle"]
    assert take_values("--set", argv) == (["x=1", "y=2"], ["a", "b", "--settle"])
    with pytest.raises(ValueError, match="--set needs a value"):
        take_values("--set", ["--set"])


def test_settings_are_json_at_a_path() -> None:
    config, rest = take_settings(EvaluateConfig(), ["--set", "stride=8", "left"])
    assert (config.stride, rest) == (8, ["left"])
    for words, said in ((["--set", "stride"], "PATH=JSON"), (["--set", "stride=a b"], "not JSON")):
        with pytest.raises(ValueError, match=said):
            take_settings(EvaluateConfig(), words)


def test_two_paths_come_first(capsys: pytest.CaptureFixture) -> None:
    one, other, rest = two_paths(["a", "b", "--quick"], "usage", "fairway x")
    assert (one.name, other.name, rest) == ("a", "b", ["--quick"])
    with pytest.raises(ValueError, match=r"^usage$"):
        two_paths(["a"], "usage", "fairway x")
    with pytest.raises(SystemExit):
        two_paths(["--help"], "usage", "fairway x")
    assert "fairway x --help lists the options" in capsys.readouterr().out


def test_of_progress_only_the_words_are_shown(capsys: pytest.CaptureFixture) -> None:
    print_text(1, 2)
    print_text(text="half of it")
    assert capsys.readouterr() == ("", "half of it\n")
