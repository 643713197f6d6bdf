"""Commands that hand a model on to the tools that people use."""

import json
import os
import sys
from typing import Annotated

from tyro.conf import DisallowNone, Positional, arg

from fairway.cli.answer import Answer, open_decoder, open_model, require_places
from fairway.cli.words import MaybeFile, Model, Out
from fairway.interop.harness_config import HarnessConfig
from fairway.runtime.extras import extra
from fairway.serve.config import ServeConfig

ASKING, SERVING = HarnessConfig(), ServeConfig()
TOKEN = "FAIRWAY_TOKEN"  # the variable


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


def serve(
    model: Model,
    config: Annotated[ServeConfig, DisallowNone, arg(name="")] = SERVING,
    token_file: MaybeFile = None,
    device: Annotated[str | None, arg(metavar="DEVICE")] = None,
) -> Answer:
    """offer a model to OpenAI's clients, and a page that colours text by its bits: MODEL

    POST /v1/completions, GET /v1/models, GET /health, and the page at /. Ends with Ctrl-C or
    SIGTERM, after the answers that are on their way. Needs `pip install 'fairway[serve]'`.

    Args:
        model: the model file, or hf://OWNER/NAME
        token_file: file with the token that every request has to show; otherwise the environment
            variable FAIRWAY_TOKEN, if it is set
        device: cpu, cuda or cuda:N; otherwise a GPU where there is one
    """
    from fairway.runtime.device import choose_device
    from fairway.runtime.files import read_file

    with extra("serve", "a server"):
        from fairway.serve.server import ModelServer
    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        token = read_file(token_file, 1 << 16).decode("utf-8", "replace").strip()
    loaded = open_decoder(model, choose_device(device))
    server = ModelServer(loaded, config, token)
    server.run(lambda: print(f"{server.name} at {server.address}, until Ctrl-C", file=sys.stderr))
    return {"address": server.address, "model": server.name}


def lm_eval(
    model: Model,
    config: Annotated[HarnessConfig, DisallowNone, arg(name="")] = ASKING,
    out: MaybeFile = None,
) -> Answer:
    """what lm-evaluation-harness finds of a model: MODEL --tasks NAME...

    Documents are read as the model file says, so a task's bits per byte are those of the model's
    own score. Needs `pip install 'fairway[lm-eval]'`.

    Args:
        model: the model file, or hf://OWNER/NAME
        out: JSON file to write all results to, with the settings of the tasks
    """
    from fairway.runtime.files import atomic_write

    require_places(out)
    with extra("lm-eval", "lm-evaluation-harness"):
        from lm_eval.utils import make_table

        from fairway.interop.harness import run_tasks
    found = run_tasks(open_model(model), config)
    if out is not None:
        atomic_write(out, json.dumps(found, indent=1, default=str).encode())
    print(make_table(found), file=sys.stderr)
    return {"results": found["results"]}
