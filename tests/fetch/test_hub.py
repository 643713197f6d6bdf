"""The real hub, where nothing answers."""

import pytest

from fairway.fetch.hub import HuggingFaceHub


def test_the_real_hub_fails_as_the_protocol_says() -> None:
    with pytest.raises(OSError, match="someone/golf"):
        HuggingFaceHub("http://127.0.0.1:9").listing("someone/golf")
