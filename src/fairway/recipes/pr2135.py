"""#2135: the last record. `pr1855` with hints from what was scored, and without finer columns."""

from fairway.evaluate.diagnostic import StreamHints
from fairway.evaluate.learners.tilt import Tilt
from fairway.model.adapters import TARGETS
from fairway.quant.rules import KeepHalf
from fairway.recipes import pr1855 as before
from fairway.recipes.diff import derive, override
from fairway.recipes.pr1945 import ADAPTERS, CAPS, ORDER, TARGETS_PATH
from fairway.recipes.recipe import Recipe
from fairway.recipes.script import at, fixed, inert, only, switch, under

RESERVE_SECONDS = 8.0  # published as 0.5, in which its 6.9 seconds of Hessians do not fit


def pr2135() -> Recipe:
    """`pr1855` with 32 batches of Hessians, no adapters of keys, one pause, a context of 2,560.

    Hints come from what was scored, in the order of scoring. As published they come in the order of
    the stream, which is no score: that number is the diagnostic.

    It comes from #1797 by way of #1855's settings and has nothing of #1945's. Smearing reaches
    across documents, as its command says; its README says that it does not.
    """
    changes = {
        "model.asymmetric_softcap": True,
        "model.embedding.smear_across_documents": True,
        "diagnostic": StreamHints(),
        "train.reserve_seconds": RESERVE_SECONDS,
        "train.optimizer.muon.lr": 0.028,
        "quant.reserve_seconds": RESERVE_SECONDS,
        "quant.calibration_batches": 32,
        "quant.low_rank.group": 32,
        "quant.rules.3.1": KeepHalf(),
        "evaluate.order": ORDER,
        "evaluate.tilt": Tilt(),
        "evaluate.context": 2560,
        "evaluate.ttt.pauses": (2500,),
        TARGETS_PATH: tuple(t for t in TARGETS if t != "key"),
        f"{ADAPTERS}.lr": 8e-5,
        f"{ADAPTERS}.weight_decay": 2.0,
    }
    return derive(before.pr1855(), "pr2135", changes, claim_bpb=1.05651, pull_request=2135)


def script_default() -> Recipe:
    """What the script of #2135 runs when nothing is set."""
    changes = {
        "model.embedding.smear_across_documents": True,
        f"{ADAPTERS}.weight_decay": 2.0,
        "evaluate.order": ORDER,
    }
    return override(before.script_default(), changes)


SCRIPT = before.SCRIPT.child(
    "pr2135",
    script_default,
    (
        CAPS,
        at(
            "SMEAR_GATE_BOS_FIX",
            "model.embedding.smear_across_documents",
            to=lambda env: not env["SMEAR_GATE_BOS_FIX"],
            back=lambda held: not held,
        ),
        switch("NGRAM_TILT_ENABLED", "evaluate.tilt", Tilt()),
        *under("evaluate.tilt", TOKEN_ORDER="order", TOKEN_THRESHOLD="threshold"),
        *under("evaluate.tilt", TOKEN_BOOST="boost"),
        *fixed(TTT_LORA_EMA_DECAY=0.0, TTT_UPDATE_EVERY=1),
        only("NGRAM_HINT_PRECOMPUTE_OUTSIDE", False, "reading the text before the clock starts"),
        only("WITHIN_BOOST", 0.0, "a hint from within a word"),
        only("WORD_BOOST", 0.0, "a hint from the words before"),
        only("AGREE_ADD_BOOST", 0.0, "a larger boost where hints agree"),
        *inert(WITHIN_TAU=99.0, WORD_TAU=99.0),
    ),
    marks=("softcap_pos",),
)
