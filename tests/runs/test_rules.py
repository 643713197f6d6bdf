"""Rules are settings, and the challenge's are one set of them."""

import pytest

from fairway.runs.rules import CHALLENGE, RULE_SETS, RuleSet, rule_set


def test_the_challenge_asks_for_five_thousandths_of_a_nat_in_three_seeds() -> None:
    assert (CHALLENGE.threshold_nats, CHALLENGE.significance) == (0.005, 0.01)
    assert (CHALLENGE.num_seeds, CHALLENGE.cap_bytes) == (3, 16_000_000)
    assert rule_set("parameter-golf") is CHALLENGE
    assert "0.005 nats per token at p < 0.01, 3 seeds" in str(CHALLENGE)


def test_a_name_that_is_none_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match=", ".join(RULE_SETS)):
        rule_set("golf")


@pytest.mark.parametrize(
    "wrong", [{"significance": 0.0}, {"threshold_nats": -0.1}, {"num_seeds": 1}], ids=str
)
def test_rules_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RuleSet(**wrong)
