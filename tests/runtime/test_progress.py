"""Whoever does not want to know is told nothing, in every form of the call."""

from fairway.runtime.progress import Progress, silent


def test_silence_takes_every_form_of_the_call() -> None:
    progress: Progress = silent
    progress()
    progress(3, 10)
    progress(text="half of it", loss=1.5)
