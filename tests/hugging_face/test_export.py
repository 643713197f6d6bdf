"""An exported folder computes what the model file does, and needs nothing of ours to do so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairway.artifact.config_json import config_to_json
from fairway.artifact.container import pack
from fairway.artifact.loaded_model import LoadedModel, load_model
from fairway.hugging_face.export import export
from fairway.model.gpt import GPT
from fairway.recipes.registry import RECIPES, recipe, smoke
from fairway.tokens.tokenizer import ByteTokenizer, train_bpe, train_tokenizer

transformers = pytest.importorskip("transformers")
from fairway.hugging_face.modeling_fairway import CACHE  # noqa: E402

TEXTS = ["Hello, world.\n", "größer \u2581 ≠ <s> 12  blanks\t", "\0", ""]


def packed(name: str, path: Path, tokenizer: bytes) -> LoadedModel:
    torch.manual_seed(1)
    model = GPT(smoke(recipe(name)).model)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    tensors = {n: t.half() for n, t in model.shipped_state_dict().items()}
    path.write_bytes(pack({"model": config_to_json(model.config)}, tokenizer, tensors))
    return load_model(path)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_gives_the_same_logits_and_the_same_text(name: str, tmp_path: Path) -> None:
    loaded = packed(name, tmp_path / "model.fwy", ByteTokenizer().to_bytes())
    export(loaded, tmp_path / "out")
    model = opened(tmp_path / "out")
    ids = torch.tensor([[1, *(4 + byte for byte in b"to be or not")]])
    with torch.inference_mode():
        expected = loaded.model(ids)
        torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-5)
        step = model(ids[:, :5], use_cache=True)
        rest = model(ids[:, 5:], **{CACHE: step[CACHE]})
    torch.testing.assert_close(rest.logits, expected[:, 5:], rtol=0, atol=1e-4)
    cached, plain = (
        model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=use, eos_token_id=None)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)


def opened(folder: Path, kind: str = "AutoModelForCausalLM"):
    return getattr(transformers, kind).from_pretrained(folder, trust_remote_code=True)


def test_the_tokenizer_is_the_models_own(tmp_path: Path) -> None:
    ours = train_bpe([b"Hello, world. Hello again, you world of words. " * 20], 300)
    export(packed("pocket", tmp_path / "model.fwy", ours.to_bytes()), tmp_path / "out")
    theirs = opened(tmp_path / "out", "AutoTokenizer")
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ids == [ours.bos_id, *ours.encode(text.encode()).tolist()]
        assert theirs.decode(ids, skip_special_tokens=True) == text
    theirs.save_pretrained(tmp_path / "again")
    assert (
        opened(tmp_path / "again", "AutoTokenizer")(TEXTS[0]).input_ids
        == theirs(TEXTS[0]).input_ids
    )


def test_text_may_outgrow_the_context_and_loss_is_ours(tmp_path: Path) -> None:
    loaded = packed("pocket", tmp_path / "model.fwy", ByteTokenizer().to_bytes())
    export(loaded, tmp_path / "out")
    model = opened(tmp_path / "out")
    ids = torch.tensor([[1, 70, 71, 72]])
    long = 2 * loaded.model.config.train_context
    written = model.generate(ids, max_new_tokens=long, do_sample=False, eos_token_id=None)
    assert written.shape == (1, 4 + long)
    loss = loaded.model.loss(ids[:, :-1], ids[:, 1:])
    torch.testing.assert_close(model(ids, labels=ids).loss, loss, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="equal lengths"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1, 1]]))


def test_the_folder_stands_alone(tmp_path: Path) -> None:
    """In a process that cannot import fairway at all."""
    export(packed("pr1855", tmp_path / "model.fwy", ByteTokenizer().to_bytes()), tmp_path / "out")
    code = (
        "import sys; sys.modules['fairway'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (\n"
        "    each.from_pretrained('out', trust_remote_code=True)\n"
        "    for each in (AutoModelForCausalLM, AutoTokenizer)\n"
        ")\n"
        "ids = tokenizer('a', return_tensors='pt')\n"
        "print(model.generate(**ids, max_new_tokens=3).shape[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.strip() == "1", done.stderr


def test_nothing_is_half_written_or_written_over(tmp_path: Path) -> None:
    loaded = packed("pocket", tmp_path / "model.fwy", ByteTokenizer().to_bytes())
    names = export(loaded, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "fairway"
    with pytest.raises(ValueError, match="there already"):
        export(loaded, tmp_path / "out")
    assert export(loaded, tmp_path / "out", overwrite=True) == names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert loaded.sha256 in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["bytes", "bpe", "caseops"])
def test_ids_stream_into_the_text_that_they_are_together(kind: str, tmp_path: Path) -> None:
    """Even from the middle of a word of capitals, or of a character."""
    text = "The GREENHOUSE größer: Hello, iOS and 日本! " * 3
    transform = "caseops" if kind == "caseops" else None
    made = ByteTokenizer() if kind == "bytes" else train_tokenizer([text.encode()], 300, transform)
    export(packed("pocket", tmp_path / "model.fwy", made.to_bytes()), tmp_path / "out")
    theirs = opened(tmp_path / "out", "AutoTokenizer")
    ids = theirs(text).input_ids
    for begin in range(len(ids)):
        step = theirs.stream_decoder(ids[:begin])
        before = theirs.stream_decoder()
        shown = "".join(map(before, ids[:begin]))
        assert shown + "".join(map(step, [*ids[begin:], None])) == text
