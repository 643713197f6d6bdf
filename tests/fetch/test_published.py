"""Of what a repository lists, exactly the files of one data set are wanted."""

import pytest

from fairway.fetch.hub import Listing, RemoteFile
from fairway.fetch.published import PUBLISHED, select


def test_byte_counts_of_a_transformed_text_come_with_its_validation_shards() -> None:
    caseops = PUBLISHED["sp8192_caseops"]
    folder = f"datasets/datasets/{caseops.folder}"
    files = [
        RemoteFile(f"{folder}/fineweb_{kind}_000000.bin", 10, None)
        for kind in ("train", "val", "val_bytes")
    ] + [RemoteFile(f"datasets/tokenizers/{caseops.tokenizer}", 10, None)]
    chosen = select("sp8192_caseops", caseops, Listing("r", tuple(files)), 1)
    assert "fineweb_val_bytes_000000.bin" in chosen
    without = tuple(file for file in files if "val_bytes" not in file.path)
    with pytest.raises(ValueError, match="lacks byte counts"):
        select("sp8192_caseops", caseops, Listing("r", without), 1)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_an_empty_repository_is_told_by_what_it_lacks(name: str) -> None:
    with pytest.raises(ValueError, match=r"lacks validation shards.*and a tokenizer"):
        select(name, PUBLISHED[name], Listing("r", ()), 1)
