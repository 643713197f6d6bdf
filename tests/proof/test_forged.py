"""Files that somebody altered and sealed anew: refused, or the very text, and never another one.

Checksums are of no use against whoever knows how to mend them.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fairway.artifact.loaded_model import LoadedModel
from fairway.artifact.sections import Refused, Section, pack_frame, unpack_frame
from fairway.coding.marks import pack_marks, unpack_marks
from fairway.evaluate.learners.mixture import Mixture
from fairway.evaluate.learners.sgd import Sgd
from fairway.evaluate.ledger import Margins
from fairway.proof import compress, proof_file
from fairway.proof.prove import prove
from fairway.proof.reproducible import NotReproducible
from fairway.proof.ties import LOGITS, STATE
from fairway.proof.verify import verify

from .conftest import DOCUMENTS, FROZEN, corpus, loaded

WAY = replace(
    FROZEN, arithmetic="settled", ttt=Sgd(chunk_tokens=16, epochs=1, lr=0.05), mixture=Mixture()
)
COARSE = Margins(logit=1e-6, state=2.0**-28, gradient=2.0**-28, state_bits=14)
TEXT = b"the cat sat on the mat; the rat sat on the cat. " * 4
Parts = tuple[dict[str, Any], dict[str, Section]]


def sealed(magic: bytes, data: bytes, alter: Callable[[dict[str, Any], dict[str, Section]], None]):
    """The same file with header and sections altered, and every checksum right."""
    frame = unpack_frame(magic, data, "a file")
    header, sections = dict(frame.header), dict(frame.sections)
    alter(header, sections)
    return pack_frame(magic, header, list(sections.values()))


def with_data(section: Section, data: bytes) -> Section:
    return Section(section.name, "stored", data)


def swap_lists(header: dict[str, Any], sections: dict[str, Section]) -> None:
    logits, state = sections[LOGITS], sections[STATE]
    sections[LOGITS], sections[STATE] = Section(LOGITS, *state[1:]), Section(STATE, *logits[1:])


def no_list(header: dict[str, Any], sections: dict[str, Section]) -> None:
    del sections[STATE]


def empty_lists(header: dict[str, Any], sections: dict[str, Section]) -> None:
    for name in (LOGITS, STATE):
        sections[name] = with_data(sections[name], b"")


def turned(header: dict[str, Any], sections: dict[str, Section]) -> None:
    for name in (LOGITS, STATE):
        marks = unpack_marks(sections[name].data, 1 << 60)
        sections[name] = with_data(sections[name], pack_marks({k: not v for k, v in marks.items()}))


def shifted(header: dict[str, Any], sections: dict[str, Section]) -> None:
    for name in (LOGITS, STATE):
        marks = unpack_marks(sections[name].data, 1 << 60)
        sections[name] = with_data(sections[name], pack_marks({k + 1: v for k, v in marks.items()}))


def cut_list(header: dict[str, Any], sections: dict[str, Section]) -> None:
    sections[LOGITS] = with_data(sections[LOGITS], sections[LOGITS].data[:-1])


def too_long(header: dict[str, Any], sections: dict[str, Section]) -> None:
    sections[STATE] = with_data(sections[STATE], pack_marks(dict.fromkeys(range(9000), True)))


def other_margin(header: dict[str, Any], sections: dict[str, Section]) -> None:
    header["settled"] = header["settled"] | {"state": 2.0**-30}


def other_grid(header: dict[str, Any], sections: dict[str, Section]) -> None:
    header["settled"] = header["settled"] | {"state_bits": 13}


def no_margins(header: dict[str, Any], sections: dict[str, Section]) -> None:
    del header["settled"]


def native(header: dict[str, Any], sections: dict[str, Section]) -> None:
    del header["settled"]
    if "evaluate" in header:
        header["evaluate"] = header["evaluate"] | {"arithmetic": "native"}


def more_tokens(header: dict[str, Any], sections: dict[str, Section]) -> None:
    header["num_tokens"] += 1


ALTERED = [
    swap_lists, no_list, empty_lists, turned, shifted, cut_list, too_long,
    other_margin, other_grid, no_margins, native, more_tokens,
]  # fmt: skip
CERTAINLY_REFUSED = {no_list, cut_list, too_long, no_margins, native, more_tokens}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, LoadedModel]:
    """A proof and a compressed file with ties of both kinds, and their model."""
    model, path = loaded(WAY), tmp_path_factory.mktemp("forged") / "proof.fwp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sgd, "margins", lambda self: COARSE)
        prove(model, corpus(DOCUMENTS), out=path, guard=False)
        packed = compress.code(model, TEXT, compress.CompressConfig(every=16, guard=False))
    for magic, data in ((proof_file.MAGIC, path.read_bytes()), (compress.MAGIC, packed)):
        sections = unpack_frame(magic, data, "a file").sections
        assert sections[LOGITS].data
        assert sections[STATE].data
    return path.read_bytes(), packed, model


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_proof_is_refused_or_gives_the_text(alter, settled, tmp_path: Path) -> None:
    data, _, model = settled
    path = tmp_path / "forged.fwp"
    path.write_bytes(sealed(proof_file.MAGIC, data, alter))
    with suppress(Refused, NotReproducible):
        assert verify(path, model).documents == tuple(DOCUMENTS)
        assert alter not in CERTAINLY_REFUSED


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_file_is_refused_or_gives_the_bytes(alter, settled) -> None:
    _, packed, model = settled
    forged = sealed(compress.MAGIC, packed, alter)
    with suppress(Refused, NotReproducible):
        assert compress.decompress(model, forged) == TEXT
        assert alter not in CERTAINLY_REFUSED


def test_a_proof_of_another_model_is_refused_by_its_name(settled, tmp_path: Path) -> None:
    data, packed, _ = settled
    path, other = tmp_path / "proof.fwp", loaded(WAY, num_layers=1)
    path.write_bytes(data)
    with pytest.raises(Refused, match="was made with the model"):
        verify(path, other)
    with pytest.raises(Refused, match="was made with the model"):
        compress.decompress(other, packed)


def test_every_shorter_file_is_refused(settled, tmp_path: Path) -> None:
    data, packed, model = settled
    path = tmp_path / "cut.fwp"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(Refused):
            verify(path, model)
    for length in range(0, len(packed), 7):
        with pytest.raises(Refused):
            compress.decompress(model, packed[:length])


def test_a_machine_that_flushes_denormal_numbers_decodes_as_well(settled, tmp_path: Path) -> None:
    data, packed, model = settled
    path = tmp_path / "proof.fwp"
    path.write_bytes(data)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    try:
        tiny = torch.tensor([1e-310], dtype=torch.float64)
        assert float(tiny * 1.0) == 0.0
        assert verify(path, model).documents == tuple(DOCUMENTS)
        assert compress.decompress(model, packed) == TEXT
    finally:
        torch.set_flush_denormal(False)
