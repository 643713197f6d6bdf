"""Raw text to shards and a tokenizer: on all cores, in bounded memory, and resumable."""

from fairway.prepare.corpus import (
    Request,
    cut_end,
    prepare,
    prepare_documents,
    prepare_request,
)
from fairway.prepare.sources import read_documents
from fairway.runtime.callable_module import make_callable

__all__ = [
    "Request",
    "cut_end",
    "prepare",
    "prepare_documents",
    "prepare_request",
    "read_documents",
]

make_callable(__name__, prepare)  # so that `fairway.prepare(...)` is what people expect
