"""The card of an exported model: what it is, what it scored, and how that can be checked."""

from pathlib import Path

from fairway.artifact.loaded_model import LoadedModel
from fairway.model.blank import num_params
from fairway.result import RunResult, read_result


def model_card(loaded: LoadedModel) -> str:
    """Markdown with the hub's header; score, certificate and budget where the model's run tells."""
    config, run = loaded.model.config, _run_of(loaded)
    facts = [
        ("parameters", f"{num_params(config):,}"),
        ("pieces", f"{config.vocab_size:,} ({loaded.tokenizer.kind})"),
        ("context in training", f"{config.train_context:,} tokens"),
        ("sha256 of the model file", f"`{loaded.sha256}`"),
    ]
    if run is not None:
        facts += _facts_of(run)
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [fairway, byte-budgeted]
---

# {run.recipe if run is not None else "A model"} of fairway

| | |
|---|---|
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
ids = tokenizer("The function returns", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=40, do_sample=True)[0]))
```

The weights here are those that the packed model file holds after rounding, in float32. The score is
of the packed file, with its own evaluation; this folder computes the frozen model only.
"""


def _facts_of(run: RunResult) -> list[tuple[str, str]]:
    facts = []
    if run.score is not None:
        size = f"{run.score.bytes:,} bytes of validation text"
        facts.append(("score", f"{run.score.bits_per_byte:.5f} bits per byte over {size}"))
    if run.artifact is not None:
        artifact = run.artifact
        facts.append(("size", f"{artifact.bytes_total:,} of {artifact.cap_bytes:,} bytes"))
    if run.train is not None and run.train.budget_seconds is not None:
        facts.append(
            ("training", f"{run.train.seconds:.1f} of {run.train.budget_seconds:.0f} seconds")
        )
    if run.proof is not None and run.proof.holds:
        size = f"{run.proof.tokens:,} tokens in {run.proof.coded_bytes:,} bytes"
        facts.append(("proof", f"{size}, decoded to the same text"))
    if run.audit is not None:
        facts.append(("audit", str(run.audit.verdict)))
    return facts


def _run_of(loaded: LoadedModel) -> RunResult | None:
    """The run whose folder the model file lies in, if it is that run's model."""
    folder = Path() if loaded.path is None else loaded.path.parent
    if loaded.path is None or not (folder / "result.json").is_file():
        return None
    run = read_result(folder)
    made_here = run.artifact is not None and run.artifact.sha256 == loaded.sha256
    return run if made_here else None
