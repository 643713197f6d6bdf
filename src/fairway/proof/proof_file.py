"""What a proof file holds: a bitstream, and all a decoder needs beside the model.

The layout of the bytes is in `artifact/sections.py`; making one in `prove.py`, decoding in
`verify.py`.
"""

from dataclasses import dataclass, field

import numpy as np

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.artifact.sections import Refused, Section, best_packed, pack_frame, unpack_frame
from fairway.evaluate.config import EvaluateConfig
from fairway.evaluate.ledger import Margins, Ties
from fairway.proof.bitstream import WalkConfig
from fairway.proof.decoder_limits import (
    MOST_TOKENS,
    MOST_WINDOWS,
    check_coding,
    check_evaluation,
    check_facts,
)
from fairway.proof.prefix import Prefix, pack_starts, unpack_starts
from fairway.proof.ties import read_ties, tie_sections, with_margins
from fairway.runtime.limits import require_within

MAGIC = b"FWP2"
MOST_STARTS = 4 * MOST_WINDOWS  # bytes: each document has a window of its own


@dataclass(frozen=True, kw_only=True)
class ProofFile:
    """A coded text.

    symbols      the bitstream
    checkpoints  crc32 of the tokens so far, see `Checkpoints`
    evaluate     how the tokens were scored; `seed` is that of `make_predictor`
    learned      the chunks that were learned from, as runs [first, stop), where a clock left some
                 out; None: all
    settled      the margins of settled arithmetic, and `ties` within them; None: native
    """

    artifact_sha256: str
    text_sha256: str
    evaluate: EvaluateConfig
    seed: int
    prefix: Prefix
    walk: WalkConfig
    threads: int
    circumstances: dict[str, str]
    checkpoints: tuple[int, ...]
    symbols: bytes
    learned: tuple[tuple[int, int], ...] | None = None
    settled: Margins | None = None
    ties: Ties = field(default_factory=Ties)

    @property
    def tie_bytes(self) -> int:
        return sum(len(section.data) for section in self._tie_sections())

    def _tie_sections(self) -> list[Section]:
        return [] if self.settled is None else tie_sections(self.ties, self.prefix.num_tokens)

    def to_bytes(self) -> bytes:
        header = _Header(
            artifact_sha256=self.artifact_sha256,
            text_sha256=self.text_sha256,
            num_tokens=self.prefix.num_tokens,
            num_chunks=self.prefix.num_chunks,
            first_token=self.prefix.first_token,
            seed=self.seed,
            threads=self.threads,
            walk=self.walk,
            evaluate=self.evaluate,
            circumstances=self.circumstances,
            learned=self.learned,
            settled=self.settled,
        )
        told = config_to_json(header)
        for name in ("learned", "settled"):
            if told[name] is None:
                del told[name]
        sections = [
            best_packed("starts", pack_starts(self.prefix.starts)),
            Section("checkpoints", "stored", np.array(self.checkpoints, dtype="<u4").tobytes()),
            Section("symbols", "stored", self.symbols),
            *self._tie_sections(),
        ]
        return pack_frame(MAGIC, told, sections)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ProofFile":
        """Raises `Refused` for anything but the whole, unchanged bytes of a proof."""
        frame = unpack_frame(MAGIC, data, "a proof of fairway")
        try:
            header = config_from_json(_Header, with_margins(frame.header))
            checkpoints = np.frombuffer(frame.read("checkpoints", len(data)), "<u4")
            check_coding(
                num_tokens=header.num_tokens,
                every=header.walk.every,
                rows=header.walk.rows,
                threads=header.threads,
                checkpoints=len(checkpoints),
                windows=header.num_tokens // header.evaluate.least_stride,
                file_bytes=len(data),
            )
            most = min(4 * header.num_tokens, MOST_STARTS) if header.evaluate.documents else 0
            starts = unpack_starts(frame.read("starts", most + 5))
            if header.evaluate.documents != bool(starts):
                raise ValueError(f"{len(starts):,} documents' starts, against its evaluation")
            return cls(
                artifact_sha256=header.artifact_sha256,
                text_sha256=header.text_sha256,
                evaluate=header.evaluate,
                seed=header.seed,
                prefix=Prefix(
                    num_tokens=header.num_tokens,
                    num_chunks=header.num_chunks,
                    first_token=header.first_token,
                    starts=starts,
                ),
                walk=header.walk,
                threads=header.threads,
                circumstances=header.circumstances,
                checkpoints=tuple(checkpoints.tolist()),
                symbols=frame.read("symbols", len(data)),
                learned=header.learned,
                settled=header.settled,
                ties=Ties() if header.settled is None else read_ties(frame, header.num_tokens),
            )
        except ValueError as error:
            raise Refused(f"its header is no proof's: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Header:
    """A proof file's header, every field checked for its type by `config_from_json`."""

    artifact_sha256: str
    text_sha256: str
    num_tokens: int
    num_chunks: int
    first_token: int
    seed: int
    threads: int
    walk: WalkConfig
    evaluate: EvaluateConfig
    circumstances: dict[str, str]
    learned: tuple[tuple[int, int], ...] | None = None
    settled: Margins | None = None

    def __post_init__(self) -> None:
        if self.evaluate.settled != (self.settled is not None):
            raise ValueError(f"arithmetic={self.evaluate.arithmetic!r} with margins {self.settled}")
        require_within(
            self,
            num_tokens=(2, MOST_TOKENS),
            num_chunks=(1, MOST_TOKENS),
            first_token=(0, 1 << 20),
            seed=(0, (1 << 63) - 1),
        )
        require_within(self.walk, pad_to=(0, 1 << 24))
        check_evaluation(self.evaluate)
        sums = {"artifact_sha256": self.artifact_sha256, "text_sha256": self.text_sha256}
        check_facts(sums, self.circumstances)
        edges = [edge for run in self.learned or () for edge in run]
        if edges and (edges != sorted(set(edges)) or edges[0] < 0 or edges[-1] > self.num_chunks):
            raise ValueError(
                f"its runs of learned chunks do not rise from 0 to {self.num_chunks:,}"
            )
