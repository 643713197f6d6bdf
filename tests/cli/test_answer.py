"""What is made of --set, and what is shown of progress."""

import pytest

from fairway.cli.answer import print_text, with_settings
from fairway.evaluate.config import EvaluateConfig


def test_settings_are_json_at_a_path() -> None:
    assert with_settings(EvaluateConfig(), ["stride=8", "rows=2"]).stride == 8
    for setting, said in (("stride", "PATH=JSON"), ("stride=a b", "not JSON")):
        with pytest.raises(ValueError, match=said):
            with_settings(EvaluateConfig(), [setting])


def test_of_progress_only_the_words_are_shown(capsys: pytest.CaptureFixture) -> None:
    print_text(1, 2)
    print_text(text="half of it")
    assert capsys.readouterr() == ("", "half of it\n")
