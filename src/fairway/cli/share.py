"""Commands that hand a model on to the tools that people use."""

import sys
from typing import Annotated

from tyro.conf import Positional, arg

from fairway.cli.answer import Answer, open_model
from fairway.cli.words import Model, Out


def export(model: Model, out: Out, overwrite: bool = False) -> Answer:
    """a model as a folder that the Hugging Face library opens: MODEL OUT

    Writes weights, tokenizer, a card, and the source files that read them. The folder needs no
    fairway: AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True).

    Args:
        model: the model file, or hf://OWNER/NAME
        out: the folder to write
        overwrite: replace the folder that is there, once the new one is whole
    """
    from fairway.hugging_face.export import export as write

    files = write(open_model(model), out, overwrite=overwrite)
    print(f"{len(files)} files in {out}", file=sys.stderr)
    return {"out": str(out), "files": files}


def push(
    model: Model,
    address: Annotated[str, Positional, arg(metavar="hf://OWNER/NAME")],
    private: bool = False,
) -> Answer:
    """an exported model, with its model file, onto the Hugging Face hub: MODEL hf://OWNER/NAME

    One commit with all that `fairway export` writes; `fairway.load(ADDRESS)` opens it.

    Args:
        model: the model file
        address: where to put it, made if it is not there
        private: make the repository a private one
    """
    from fairway.hugging_face.push import push as upload

    where = upload(open_model(model), address, private=private)
    print(where, file=sys.stderr)
    return {"address": address, "commit": where}
