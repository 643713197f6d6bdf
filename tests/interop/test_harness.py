"""The harness's numbers are ours, on the same documents."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fairway
from fairway.api.model import Model
from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.generate import GenerateConfig, generate
from fairway.model.attention import AttentionConfig
from fairway.model.gpt import GPT
from fairway.model.model_config import ModelConfig
from fairway.tokens.tokenizer import ByteTokenizer, Tokenizer, train_tokenizer

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
from lm_eval.api.instance import Instance

from fairway.interop.harness import FairwayLM, generation, run_tasks
from fairway.interop.harness_config import HarnessConfig

DOCUMENTS = ["Once upon a TIME there was a hare. " * 4, "größer ≠ kleiner\n", "x", "  blanks  "]
CHOICES = [("the hare is", " quick"), ("the hare is", " slow and very, very much a hare" * 3)]
LEARNING = EvaluateConfig(context=16, stride=8, ttt=Sgd(chunk_tokens=16, lr=0.05))


def packed(path: Path, tokenizer: Tokenizer) -> Model:
    torch.manual_seed(5)
    attention = AttentionConfig(num_heads=2, num_kv_heads=1)
    config = ModelConfig(
        vocab_size=320, model_dim=16, num_layers=2, attention=attention, train_context=16
    )
    model = GPT(config)
    torch.nn.init.normal_(model.embed.weight, std=0.5)
    evaluate = replace(LEARNING, mixture=Mixture())
    described = {"model": config_to_json(config), "evaluate": config_to_json(evaluate)}
    tensors = {name: t.half() for name, t in model.shipped_state_dict().items()}
    path.write_bytes(pack(described, tokenizer.to_bytes(), tensors))
    return fairway.load(path)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    folder, made = tmp_path_factory.mktemp("models"), {}
    text = [document.encode() * 9 for document in DOCUMENTS[:2]]

    def opened(kind: str) -> Model:
        if kind not in made:
            transform = "caseops" if kind == "caseops" else None
            tokenizer = (
                ByteTokenizer() if kind == "bytes" else train_tokenizer(text, 300, transform)
            )
            made[kind] = packed(folder / f"{kind}.fwy", tokenizer)
        return made[kind]

    return opened


def asked(kind: str, *texts) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(texts)]  # type: ignore[arg-type]


def nats_after(model: Model, text: str, given: int) -> float:
    """Of the tokens from the `given`th on, each from all before it, as far as the context goes."""
    ids, total = torch.from_numpy(model.encode(text)), 0.0
    for place in range(given, len(ids)):
        logs = model.logits(ids[max(0, place - model.context) : place])[-1].double().log_softmax(-1)
        total -= float(logs[ids[place]])
    return total


@pytest.mark.parametrize("kind", ["bytes", "bpe", "caseops"])
@pytest.mark.parametrize("learn", [True, False])
def test_whole_documents_cost_what_our_own_score_says(make, kind: str, learn: bool) -> None:
    model = make(kind)
    requests = asked("loglikelihood_rolling", *((document,) for document in DOCUMENTS))
    found = FairwayLM(model.loaded, learn=learn).loglikelihood_rolling(requests)
    ours = [-model.score(document, learn=learn).nats for document in DOCUMENTS]
    assert found == pytest.approx(ours, rel=1e-12)


def test_a_document_of_nothing_costs_nothing(make) -> None:
    requests = asked("loglikelihood_rolling", ("",))
    assert FairwayLM(make("bpe").loaded).loglikelihood_rolling(requests) == [0.0]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_a_continuation_is_scored_after_its_context(make, kind: str) -> None:
    model = make(kind)
    requests = asked("loglikelihood", *CHOICES, ("", "the hare"))
    found = FairwayLM(model.loaded).loglikelihood(requests, disable_tqdm=True)
    short = nats_after(model, "".join(CHOICES[0]), len(model.encode(CHOICES[0][0])))
    assert found[0][0] == pytest.approx(-short, rel=1e-5)
    assert found[2][0] == pytest.approx(-nats_after(model, "the hare", 1), rel=1e-5)
    one_by_one = FairwayLM(model.loaded, replace(LEARNING, stride=1, ttt=None))
    ((long, _),) = one_by_one.loglikelihood(asked("loglikelihood", CHOICES[1]), disable_tqdm=True)
    wanted = nats_after(model, "".join(CHOICES[1]), len(model.encode(CHOICES[1][0])))
    assert long == pytest.approx(-wanted, rel=1e-5)  # longer than the model's context


def test_no_continuation_is_swallowed_by_a_token_that_spans_it(make) -> None:
    model = make("bpe")
    pieces = {model.decode([i]).decode("latin-1") for i in range(300)}
    spanning = max((p for p in pieces if p.isascii() and p.isalpha()), key=len)
    assert len(spanning) > 1
    lm = FairwayLM(model.loaded)
    for cut in range(1, len(spanning)):
        before, after = lm._encode_pair(spanning[:cut], spanning[cut:])
        assert model.decode(before) == spanning[:cut].encode()
        assert model.decode(after) == spanning[cut:].encode()
    with pytest.raises(ValueError, match="comes no text"):
        lm.loglikelihood(asked("loglikelihood", ("a", "")))


def test_what_is_likeliest_is_greedy_and_written(make) -> None:
    model, lm = make("bytes"), FairwayLM(make("bytes").loaded)
    (text,) = lm.generate_until(asked("generate_until", ("once", {"max_gen_toks": 6, "until": []})))
    config = GenerateConfig(num_tokens=6, temperature=0.0)
    assert text.encode() == b"".join(generate(model.loaded, b"once", config))
    answers = lm.loglikelihood(asked("loglikelihood", ("once", text), ("once", text + "qqq")))
    assert [greedy for _, greedy in answers] == [True, False]
    for stop in (text[-1], "never there"):
        stopped = {"max_gen_toks": 6, "until": [stop]}
        written = lm.generate_until(asked("generate_until", ("once", stopped)))
        assert written == [text.partition(stop)[0]]


def test_how_a_task_wants_text_written_is_understood_or_refused() -> None:
    assert generation({"until": "\n", "do_sample": False, "temperature": 0.7}).temperature == 0
    config = generation({"until": ["a", "b"], "do_sample": True, "top_p": 0.9, "max_tokens": 3})
    assert (config.temperature, config.top_p, config.num_tokens) == (1.0, 0.9, 3)
    with pytest.raises(ValueError, match="num_beams"):
        generation({"num_beams": 4})


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with a task of whole documents and one of choices, and their data."""
    lines = [json.dumps({"text": text}) for text in DOCUMENTS]
    (tmp_path / "documents.jsonl").write_text("\n".join(lines))
    choice = {"question": "the hare is", "choices": ["quick", "slow"], "answer": 0}
    (tmp_path / "choices.jsonl").write_text(json.dumps(choice))
    for name, body in {
        "documents": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte}, {metric: byte_perplexity}]\n",
        "choices": "output_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: '{{choices}}'\ndoc_to_target: answer\nmetric_list: [{metric: acc}]\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"task: local_{name}\ndataset_path: json\ntest_split: test\n"
            f"dataset_kwargs: {{data_files: {{test: '{tmp_path / name}.jsonl'}}}}\n{body}"
        )
    return tmp_path


def test_bits_per_byte_of_a_local_task_are_ours(
    make, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    model = make("bpe")
    config = HarnessConfig(tasks=("local_documents", "local_choices"), include_path=tasks)
    results = run_tasks(model.loaded, config)["results"]
    scores = [model.score(document, learn=False) for document in DOCUMENTS]
    ours = math.fsum(s.bits for s in scores) / sum(s.num_bytes for s in scores)
    found = results["local_documents"]
    assert found["bits_per_byte,none"] == pytest.approx(ours, rel=1e-12)
    assert found["byte_perplexity,none"] == pytest.approx(2**ours, rel=1e-12)
    assert results["local_choices"]["acc,none"] in (0.0, 1.0)


def test_a_folder_of_tasks_that_is_not_there_is_named(make, tmp_path: Path) -> None:
    config = HarnessConfig(tasks=("any",), include_path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        run_tasks(make("bpe").loaded, config)


@pytest.mark.slow
def test_a_task_that_is_not_there_is_named_with_the_nearest(make, tasks: Path) -> None:
    config = HarnessConfig(tasks=("local_document",), include_path=tasks)
    with pytest.raises(ValueError, match="did you mean 'local_documents'"):
        run_tasks(make("bpe").loaded, config)
