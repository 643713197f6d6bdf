import dataclasses

import pytest
import tyro

from fairway.evaluate import config as evaluation_config
from fairway.evaluate.config import EvaluateConfig, Mixture, make_predictor, plan_evaluation
from fairway.evaluate.frozen import Frozen
from fairway.evaluate.learners.documents import DocumentAdapters, DocumentPredictor
from fairway.evaluate.learners.mixture import MixturePredictor
from fairway.evaluate.learners.phased import Phased, PhasedPredictor
from fairway.evaluate.learners.sgd import Sgd, SgdPredictor
from fairway.model.adapters import AdapterConfig

from .models import CONFIGS, CONTEXT, PLAIN, tiny_model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_is_plain_data(config: EvaluateConfig) -> None:
    names = vars(evaluation_config) | {"AdapterConfig": AdapterConfig}
    assert eval(repr(config), dict(names)) == config
    assert hash(config) == hash(dataclasses.replace(config))


def test_every_setting_can_be_given_on_a_command_line() -> None:
    def parse(*args: str) -> EvaluateConfig:
        return tyro.cli(EvaluateConfig, args=list(args))

    assert parse() == EvaluateConfig()
    chosen = parse("--stride", "32", "ttt:sgd", "--ttt.lr", "0.1", "mixture:mixture")
    assert chosen == EvaluateConfig(stride=32, ttt=Sgd(lr=0.1), mixture=Mixture())
    adapted = parse("--documents", "ttt:document-adapters", "--ttt.adapters.rank", "4")
    assert isinstance(adapted.ttt, DocumentAdapters)
    assert adapted.ttt.adapters.rank == 4


def test_each_config_makes_its_predictor() -> None:
    kinds = {"frozen": Frozen, "sgd": SgdPredictor, "adapters": DocumentPredictor}
    for name, kind in (kinds | {"phased": PhasedPredictor}).items():
        assert type(make_predictor(tiny_model(), CONFIGS[name])) is kind
    mixed = make_predictor(tiny_model(), CONFIGS["mixture of sgd"])
    assert isinstance(mixed, MixturePredictor)
    assert type(mixed.base) is SgdPredictor


def test_the_context_is_the_models_own_unless_told() -> None:
    config = EvaluateConfig(stride=4)
    assert config.resolved(CONTEXT).context == CONTEXT
    assert dataclasses.replace(config, context=8).resolved(CONTEXT).context == 8
    with pytest.raises(ValueError, match=r"config\.resolved"):
        plan_evaluation(config, 100, [0])


def test_one_token_or_none_is_nothing_to_score() -> None:
    for num_tokens in (0, 1):
        with pytest.raises(ValueError, match="nothing to score"):
            plan_evaluation(PLAIN, num_tokens, [0])


def test_a_text_of_documents_begins_with_one() -> None:
    kept_apart = dataclasses.replace(PLAIN, documents=True)
    for starts in ([], [3, 9], [0, 9, 9], [0, 50]):
        with pytest.raises(ValueError, match="rise from 0"):
            plan_evaluation(kept_apart, 50, starts)
    assert plan_evaluation(PLAIN, 50, [3, 9]) == plan_evaluation(PLAIN, 50, [])


def test_a_document_of_one_token_costs_its_end_and_nothing_else() -> None:
    kept_apart = dataclasses.replace(PLAIN, documents=True)
    windows = [tuple(w) for p in plan_evaluation(kept_apart, 6, [0, 1, 5]) for w in p.windows]
    assert windows == [(0, 1, 2), (1, 2, 6)]


def test_n_grams_read_in_file_order_and_frozen_documents_side_by_side() -> None:
    kept_apart = dataclasses.replace(PLAIN, documents=True)
    frozen = plan_evaluation(kept_apart, 60, [0, 20, 40])
    mixed = plan_evaluation(dataclasses.replace(kept_apart, mixture=Mixture()), 60, [0, 20, 40])
    assert {row for plan in frozen for row in plan.rows} == {0, 1, 2}
    assert {row for plan in mixed for row in plan.rows} == {0}
    assert [plan.windows for plan in frozen] == [plan.windows for plan in mixed]


def test_what_cannot_be_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="context=8, stride=9"):
        EvaluateConfig(context=8, stride=9)
    with pytest.raises(ValueError, match="not a multiple of stride=48; set it to 96"):
        EvaluateConfig(stride=48, ttt=Sgd(chunk_tokens=100))
    with pytest.raises(ValueError, match="set it to 48"):
        EvaluateConfig(stride=48, ttt=Sgd(chunk_tokens=10))
    for learner in (DocumentAdapters(), Phased()):
        with pytest.raises(ValueError, match="set documents=True"):
            EvaluateConfig(ttt=learner)
    with pytest.raises(ValueError, match="rows=0"):
        EvaluateConfig(rows=0)
