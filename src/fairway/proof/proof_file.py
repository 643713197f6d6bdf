"""What a proof file holds: a bitstream, and all a decoder needs beside the model.

The layout of the bytes is in `frames.py`; making one is in `prove.py`, decoding in `verify.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.evaluate.ttt import EvaluateConfig
from fairway.proof.codec import WalkConfig
from fairway.proof.extent import Extent, pack_starts, unpack_starts
from fairway.proof.frames import Refused, pack, unpack

MAGIC = b"FWYPRF01"


@dataclass(frozen=True, kw_only=True)
class ProofFile:
    """A coded text.

    symbols      the bitstream
    checkpoints  crc32 of the tokens so far, see `Checkpoints`
    evaluate     how the tokens were priced; `seed` is that of `make_predictor`
    """

    artifact_sha256: str
    text_sha256: str
    evaluate: EvaluateConfig
    seed: int
    extent: Extent
    walk: WalkConfig
    threads: int
    circumstances: dict[str, str]
    checkpoints: tuple[int, ...]
    symbols: bytes

    def to_bytes(self) -> bytes:
        header: dict[str, Any] = {
            "artifact_sha256": self.artifact_sha256,
            "text_sha256": self.text_sha256,
            "num_tokens": self.extent.num_tokens,
            "num_chunks": self.extent.num_chunks,
            "first_token": self.extent.first_token,
            "seed": self.seed,
            "threads": self.threads,
            "walk": config_to_json(self.walk),
            "evaluate": config_to_json(self.evaluate),
            "circumstances": self.circumstances,
        }
        sections = {
            "starts": pack_starts(self.extent.starts),
            "checkpoints": np.array(self.checkpoints, dtype="<u4").tobytes(),
            "symbols": self.symbols,
        }
        return pack(MAGIC, header, sections)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ProofFile":
        """Raises `Refused` for anything but the whole, unchanged bytes of a proof."""
        header, sections = unpack(MAGIC, data, "a proof of fairway")
        try:
            return cls(
                artifact_sha256=header["artifact_sha256"],
                text_sha256=header["text_sha256"],
                evaluate=config_from_json(EvaluateConfig, header["evaluate"]),
                seed=header["seed"],
                extent=Extent(
                    num_tokens=header["num_tokens"],
                    num_chunks=header["num_chunks"],
                    first_token=header["first_token"],
                    starts=unpack_starts(sections["starts"]),
                ),
                walk=config_from_json(WalkConfig, header["walk"]),
                threads=header["threads"],
                circumstances=header["circumstances"],
                checkpoints=tuple(np.frombuffer(sections["checkpoints"], "<u4").tolist()),
                symbols=sections["symbols"],
            )
        except KeyError as error:
            raise Refused(f"the proof lacks {error}; another version of fairway made it") from error
