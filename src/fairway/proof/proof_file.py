"""What a proof file holds: a bitstream, and all a decoder needs beside the model.

The layout of the bytes is in `file_format.py`; making one in `prove.py`, decoding in `verify.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.artifact.config_json import config_from_json, config_to_json
from fairway.evaluate.config import EvaluateConfig
from fairway.proof.bitstream import WalkConfig
from fairway.proof.file_format import Refused, pack, unpack
from fairway.proof.prefix import Prefix, pack_starts, unpack_starts

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
    prefix: Prefix
    walk: WalkConfig
    threads: int
    circumstances: dict[str, str]
    checkpoints: tuple[int, ...]
    symbols: bytes

    def to_bytes(self) -> bytes:
        header: dict[str, Any] = {
            "artifact_sha256": self.artifact_sha256,
            "text_sha256": self.text_sha256,
            "num_tokens": self.prefix.num_tokens,
            "num_chunks": self.prefix.num_chunks,
            "first_token": self.prefix.first_token,
            "seed": self.seed,
            "threads": self.threads,
            "walk": config_to_json(self.walk),
            "evaluate": config_to_json(self.evaluate),
            "circumstances": self.circumstances,
        }
        sections = {
            "starts": pack_starts(self.prefix.starts),
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
                prefix=Prefix(
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
