"""What `import fairway` offers, and how little it costs."""

import subprocess
import sys

import pytest

import fairway


def test_every_name_is_there_and_says_what_it_does() -> None:
    assert set(fairway.__all__) == set(dir(fairway))
    for name in fairway.__all__:
        assert getattr(fairway, name).__doc__ or name == "__version__"


def test_functions_that_share_a_packages_name_stay_both() -> None:
    from fairway.audit.run import run_audit

    for _ in range(2):  # before and after the package itself was imported
        assert callable(fairway.audit)
        assert callable(fairway.prepare)
    assert fairway.audit.run.run_audit is run_audit  # type: ignore[attr-defined]


def test_what_it_does_not_offer_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"dir\(fairway\)"):
        fairway.lod  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, fairway; dir(fairway); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
