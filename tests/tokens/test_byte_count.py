from pathlib import Path

import numpy as np
import torch

from fairway.tokens.byte_count import byte_table
from fairway.tokens.tokenizer import load_tokenizer


def test_the_published_tokenizer_counts_as_published(shared: Path) -> None:
    golden = torch.load(shared / "vectors" / "bytes_sp8192.pt", weights_only=True)
    table = byte_table(load_tokenizer(shared / "data" / "tokenizers" / "fineweb_8192_bpe.model"))
    for name in ("base_bytes", "has_leading_space", "is_boundary"):
        assert np.array_equal(getattr(table, name), golden[name].numpy()), name
    counted = table.target_bytes(golden["tokens"].numpy())
    assert np.array_equal(counted, golden["target_bytes"].numpy())
