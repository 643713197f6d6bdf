"""Variables of the published scripts: defaults, and errors that name what is wrong."""

import pytest

from fairway.interop.environment import ignored_variables, model_config, parse_environment
from fairway.model.blank import num_params
from fairway.recipes.registry import SCRIPTS

FULL_1855 = {
    "SMEAR_GATE_ENABLED": "1",
    "SPARSE_ATTN_GATE_ENABLED": "1",
    "SPARSE_ATTN_GATE_SCALE": "0.5",
}


@pytest.mark.parametrize(
    ("lineage", "env", "params"),
    [
        ("baseline", {}, 17_059_912),
        ("pr414", {}, 26_993_756),
        ("pr1413", {"QK_GAIN_INIT": "5.0"}, 35_943_512),
        ("pr1493", {}, 35_944_536),
        ("pr1855", FULL_1855, 35_945_671),
    ],
)
def test_models_have_the_published_number_of_parameters(
    lineage: str, env: dict[str, str], params: int
) -> None:
    assert num_params(model_config(parse_environment(lineage, env))) == params


@pytest.mark.parametrize("lineage", SCRIPTS)
def test_a_default_written_out_changes_nothing(lineage: str) -> None:
    def text(value: object) -> str:
        return str(int(value)) if isinstance(value, bool) else str(value)

    companions = {"SPARSE_ATTN_GATE_SCALE"}  # of a switch that is off unless set
    defaults = SCRIPTS[lineage].defaults
    env = {n: text(v) for n, v in defaults.items() if n not in companions}
    assert parse_environment(lineage, env).values == parse_environment(lineage, {}).values


@pytest.mark.parametrize(
    ("lineage", "env", "words"),
    [
        ("pr1413", {"NUM_HEADS": "7"}, "NUM_HEADS=7 does not divide MODEL_DIM=512"),
        ("pr1413", {"NUM_KV_HEADS": "3"}, "NUM_KV_HEADS=3 does not divide NUM_HEADS=8"),
        ("pr1413", {"LOOP_END": "11"}, "LOOP_END=11 must be below NUM_LAYERS=11"),
        ("pr1493", {"NUM_LAYERS": "5", "XSA_LAST_N": "5"}, "LOOP_END=5 .*must be below"),
        ("pr1413", {"LOOP_START": "6"}, "LOOP_START=6 must lie between 0 and LOOP_END=5"),
        ("pr1413", {"NUM_LOOPS": "0", "LOOP_START": "3"}, "LOOP_START=3 means nothing while NUM"),
        ("pr414", {"VE_LAYERS": "9", "VE_DIM": "0"}, "VE_LAYERS=9 means nothing while VE_DIM=0"),
        ("pr414", {"VE_LAYERS": "9,11"}, "VE_LAYERS=9,11 names a layer beyond NUM_LAYERS=11"),
        ("pr414", {"VE_LAYERS": "last"}, "VE_LAYERS=last is not a list of whole numbers"),
        ("pr414", {"XSA_LAST_N": "12"}, "XSA_LAST_N=12 exceeds NUM_LAYERS=11"),
        ("pr414", {"ROPE_DIMS": "65"}, "ROPE_DIMS=65 must be even and at most the head width 64"),
        ("pr414", {"DTG_ENABLED": "1"}, "DTG_ENABLED=1: dynamic token gates is not supported"),
        ("baseline", {"LOGIT_SOFTCAP": "0"}, "LOGIT_SOFTCAP=0.0 must be positive"),
        ("baseline", {"NUM_LAYERS": "nine"}, "NUM_LAYERS='nine' is not a whole number"),
        ("baseline", {"TIE_EMBEDDINGS": "yes"}, "TIE_EMBEDDINGS='yes' is not 0 or 1"),
        ("baseline", {"XSA_LAST_N": "4"}, "XSA_LAST_N is not a variable of this script, but of pr"),
        ("baseline", {"MATRX_LR": "1"}, "MATRX_LR is .* any known script; did you mean MATRIX_LR"),
        ("pr9", {}, "unknown lineage 'pr9'.* There are: naive_baseline, sota254"),
    ],
)
def test_what_cannot_be_is_refused_by_name(lineage: str, env: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_environment(lineage, env)


def test_one_error_names_every_fault() -> None:
    with pytest.raises(ValueError, match=r"NUM_HEADS=5.*LOOP_END=20"):
        parse_environment("pr1413", {"NUM_HEADS": "5", "LOOP_END": "20"})


def test_paths_and_logging_are_nobodys_business() -> None:
    env = {"DATA_PATH": "/x", "RUN_ID": "a", "VAL_LOSS_EVERY": "9"}
    assert parse_environment("pr414", env).values == parse_environment("pr414", {}).values


def test_what_a_script_never_reads_is_named_and_changes_nothing() -> None:
    """#1855's own README sets a variable that its script has no line for."""
    env = {"PHASED_TTT_ENABLED": "1", "EMBEDDING_DIM": "256", "MODEL_DIM": "384"}
    assert ignored_variables("pr1855", env) == ("EMBEDDING_DIM", "PHASED_TTT_ENABLED")
    parsed = parse_environment("pr1855", env)
    assert parsed.values == parse_environment("pr1855", {"MODEL_DIM": "384"}).values
    assert model_config(parsed).embedding.dim is None
    assert ignored_variables("pr1413", {"EMBEDDING_DIM": "256"}) == ()


def test_angles_of_1855_are_stretched_only_when_told_to() -> None:
    for lineage, env, stretched in (
        ("pr1855", {}, False),
        ("pr1855", {"ROPE_YARN": "1"}, True),
        ("pr1493", {}, True),
    ):
        attention = model_config(parse_environment(lineage, env)).attention
        assert attention.rope_stretch is stretched


def test_options_switch_parts_of_the_model() -> None:
    plain = model_config(parse_environment("pr414", {"VE_ENABLED": "0", "BIGRAM_VOCAB_SIZE": "0"}))
    assert plain.embedding.value is None
    assert plain.embedding.ngrams == ()
    untied = model_config(parse_environment("pr1413", {"TIE_EMBEDDINGS": "0", "ROPE_DIMS": "0"}))
    assert not untied.tied
    assert untied.attention.rope_dims is None
    serial = model_config(parse_environment("pr1493", {"PARALLEL_RESIDUAL_START": "-1"}))
    assert serial.parallel is None
