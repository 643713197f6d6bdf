"""Sources are hostile until proven otherwise: each bad one is refused by name, in one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from fairway.prepare import read_documents
from fairway.prepare import sources as sources_module
from fairway.prepare.sources import MOST_LINE_BYTES, source_files
from fairway.prepare.unpack import PackedReader, _Zstd


def refused(file: Path, words: str) -> None:
    with pytest.raises(ValueError, match=words) as said:
        list(read_documents([file]))
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 500
    assert file.stem.encode("ascii", "ignore").decode()[:3] in str(said.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": 3}', '"text" is no string'),
        (b'{"words": "a"}', 'has no "text"'),
        (b'["text"]', "it is a list"),
        (b'"text"', "it is a str"),
        (b"null", "it is a NoneType"),
        (b'{"text": "a"', "line 3"),
        (b'{"text": "\xff\xfe"}', "can't decode byte 0xff"),
        (b'{"text": "\\ud800"}', "surrogates not allowed"),
        (b"[" * 200_000, "recursion"),
        (b'{"text":' * 100_000, "recursion"),
        (b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", "line 3"),
        ('{"text": "a"}'.encode("utf-16"), "line 3"),
        (b"x" * 5000, "line 3"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.xz", ".ndjson"])
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, words: str, suffix: str) -> None:
    file = tmp_path / f"bad{suffix}"
    whole = b'{"text": "good"}\n\n' + line + b'\n{"text": "good"}\n'
    file.write_bytes(lzma.compress(whole) if suffix.endswith("xz") else whole)
    refused(file, words)
    refused(file, "bad.*, line 3: expected an object")


def test_a_line_without_end_is_refused_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "MOST_LINE_BYTES", 1000)
    assert MOST_LINE_BYTES == 64 << 20
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"text": "good"}\n{"text": "' + b"a" * 5000 + b'"}\n')
    refused(file, "line 2: .*a line of more than")


def test_a_mark_of_byte_order_before_json_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "good.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b", "text": "c"}')
    assert list(read_documents([file])) == [b"a", b"c"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fELF" + bytes(100), "is a program"),
        (b"\x80\x04\x95" + b"a" * 100, "is a pickle"),
        (b"\x93NUMPY" + b"a" * 100, "is a NumPy array"),
        ("text".encode("utf-16"), "is UTF-16"),
        ("some text of letters, with zeros".encode("utf-16-be"), "is binary data"),
        (bytes(range(256)) * 20, "is binary data"),
        (bytes(5000), "is binary data"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(data)
    refused(file, words)
    packed = tmp_path / "bad.txt.xz"
    packed.write_bytes(lzma.compress(data))
    refused(packed, words.replace("bad.txt is", "bad.txt.xz is"))


def test_text_of_any_encoding_that_is_no_binary_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "good.txt"
    for data in ("schön".encode("latin-1"), b"a\0b\0c", b"\x1b[1mbold\x1b[0m text", b"{}", b"x"):
        file.write_bytes(data)
        assert b"\0".join(read_documents([file])) == data
    file.write_bytes(b"")
    assert not list(read_documents([file]))


def test_the_bytes_decide_and_a_name_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes(lzma.compress(b"a\0b") + lzma.compress(b"c"))
    assert list(read_documents([tmp_path / "good.txt"])) == [b"a", b"bc"]
    pq.write_table(pa.table({"text": ["a", "", None, "b"]}), tmp_path / "good")
    assert list(read_documents([tmp_path / "good"])) == [b"a", b"b"]
    for name in ("bad.txt.xz", "bad.parquet", "bad.parquet.xz"):
        (tmp_path / name).write_text("plain")
        refused(tmp_path / name, r"despite its name")


def test_parquet_inside_xz_is_read(tmp_path: Path) -> None:
    held = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"]}), held, row_group_size=1)
    (tmp_path / "good.parquet.xz").write_bytes(lzma.compress(held.getvalue()))
    assert list(read_documents([tmp_path / "good.parquet.xz"])) == [b"a", b"b"]


PACKERS = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_is_known_by_its_bytes_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    pack, text = PACKERS[suffix], b"one\0" + b"two " * 100_000
    for name in (f"text{suffix}", "text.txt", "text"):
        (tmp_path / name).write_bytes(
            pack(text[:7]) + pack(text[7:])
        )  # two streams, as `cat` makes
        assert b"\0".join(read_documents([tmp_path / name])) == text
    (tmp_path / f"lines.jsonl{suffix}").write_bytes(pack(b'{"text": "a"}\n{"text": "b"}\n'))
    assert list(read_documents([tmp_path / f"lines.jsonl{suffix}"])) == [b"a", b"b"]
    (tmp_path / f"twice.txt{suffix}").write_bytes(pack(pack(text)))
    refused(tmp_path / f"twice.txt{suffix}", rf"is packed once more \({suffix}\)")
    (tmp_path / f"bad{suffix}").write_text("plain text")
    refused(tmp_path / f"bad{suffix}", f"is no {suffix} file, despite its name")


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_that_was_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    whole = PACKERS[suffix](random.Random(0).randbytes(3000).hex().encode())
    for size in range(len(whole) // 2, len(whole), 97):
        (tmp_path / "cut.txt").write_bytes(whole[:size])
        refused(tmp_path / "cut.txt", "cut.txt cannot be read")


def test_a_zip_file_is_the_files_in_it(tmp_path: Path) -> None:
    file = tmp_path / "many.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/one.txt", "a\0b")
        archive.writestr("two.jsonl", '{"text": "c"}\n')
    assert list(read_documents([file])) == [b"a", b"b", b"c"]
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../three.png", b"\x89PNG" + bytes(99))
    refused(file, r"many.zip/three.png is a picture")
    file.write_bytes(file.read_bytes()[:-30])
    refused(file, "many.zip cannot be read")


def test_a_packed_bomb_streams(tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 << 20))
    assert len(bomb) < 50_000
    reader = PackedReader(io.BytesIO(bomb), _Zstd)
    tracemalloc.start()
    total = 0
    while found := reader.read(1 << 20):
        total += len(found)
    assert total == 200 << 20
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()


def test_another_field_may_hold_the_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "a", "text": "b"}\n')
    pq.write_table(pa.table({"content": ["c"]}), tmp_path / "b.parquet")
    assert list(read_documents([tmp_path], field="content")) == [b"a", b"c"]
    with pytest.raises(ValueError, match="--field names another"):
        list(read_documents([tmp_path / "b.parquet"]))


def test_every_cut_of_an_xz_file_is_refused(tmp_path: Path) -> None:
    whole = lzma.compress(b"some text\0" * 50)
    file = tmp_path / "cut.txt.xz"
    for size in range(1, len(whole)):
        file.write_bytes(whole[:size])
        refused(file, "cut.txt.xz cannot be read")
    for tail in (b"tail", whole[:9], b"\0" * 8 + b"x"):
        file.write_bytes(whole + tail)
        refused(file, "cut.txt.xz cannot be read")
    file.write_bytes(whole + bytes(8))  # padding, which the format allows
    assert len(list(read_documents([file]))) == 50


def test_every_flipped_byte_of_an_xz_file_is_refused_or_harmless(tmp_path: Path) -> None:
    text = b"some text that is not all the same, 0123456789"
    whole = lzma.compress(text)
    file = tmp_path / "flipped.txt.xz"
    for place in range(len(whole)):
        for flip in (1, 128, 255):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            refused(file, "flipped.txt.xz")


def test_a_dictionary_that_would_take_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    whole = bytearray(lzma.compress(b"a", filters=filters))
    place = whole.index(b"\x21\x01") + 2  # of LZMA2's one property
    whole[place] = 40  # 4 GiB
    import zlib

    header = bytes(whole[12 : 12 + (whole[12] + 1) * 4])[:-4]
    whole[12 + len(header) : 16 + len(header)] = zlib.crc32(header).to_bytes(4, "little")
    (tmp_path / "greedy.txt.xz").write_bytes(whole)
    refused(tmp_path / "greedy.txt.xz", "greedy.txt.xz cannot be read: .*[Mm]emory")


@pytest.mark.parametrize(
    "table",
    [
        {"words": ["a"]},
        {"text": [1, 2]},
        {"text": [["a"]]},
        {"text": [b"a"]},
        {"text": [{"text": "a"}]},
        {"Text": ["a"]},
    ],
)
def test_parquet_of_another_form_is_refused(tmp_path: Path, table: dict[str, list]) -> None:
    pq.write_table(pa.table(table), tmp_path / "bad.parquet")
    refused(tmp_path / "bad.parquet", r'bad.parquet: expected a Parquet column "text"')


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "bad.parquet")
    refused(tmp_path / "bad.parquet", "2 columns")


def test_damaged_parquet_is_refused_or_harmless(tmp_path: Path) -> None:
    """In a process of its own: what Arrow cannot bear must not end the tests."""
    held = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(40)]}), held)
    whole = held.getvalue()
    file = tmp_path / "bad.parquet"
    for size in range(4, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:size])
        refused(file, "bad.parquet")
    for place in range(4, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            documents = list(read_documents([file]))
        except ValueError as error:
            assert "bad.parquet" in str(error)  # noqa: PT017  (most are refused, some harmless)
        else:
            assert len(documents) <= 41


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_bombs_stream_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    """A gigabyte and more out of a small file, below half a gigabyte of memory."""
    if kind == "parquet":
        file = tmp_path / "bomb.parquet"
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), ["x" * 8_000_000])
        pq.write_table(pa.table({"text": column}), file, compression="zstd")
    elif kind == "text":
        file = tmp_path / "bomb.txt.xz"
        block = b"some text\0" * 100_000
        stream = lzma.LZMACompressor(preset=1)
        file.write_bytes(b"".join(stream.compress(block) for _ in range(300)) + stream.flush())
    else:
        file = tmp_path / "bomb.jsonl.xz"
        stream = lzma.LZMACompressor(preset=1)
        packed = [stream.compress(b'{"text": "')]
        packed += [stream.compress(b"a" * 10_000_000) for _ in range(30)]
        file.write_bytes(b"".join(packed) + stream.flush())
    # VmHWM, since the peak that getrusage knows begins with that of the process that forked.
    code = (
        "import re, sys; from fairway.prepare.sources import read_documents\n"
        "from pathlib import Path\n"
        "try:\n    n = sum(1 for _ in read_documents([Path(sys.argv[1])]))\n"
        "except ValueError as e: n = str(e)\n"
        "peak = re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())\n"
        "print(n, peak[1], sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    found, kilobytes = done.stdout.strip().split("|")
    assert int(kilobytes) < 700_000
    assert ("line 1" in found) if kind == "jsonl" else int(found) in (200, 30_000_000)


def test_a_document_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "MOST_DOCUMENT_BYTES", 1 << 20)
    (tmp_path / "long.txt").write_text("a line\n" * 600_000)
    refused(tmp_path / "long.txt", "separate its documents by NUL")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "circle.txt").symlink_to("circle.txt")
    (tmp_path / "nowhere.txt").symlink_to("none")
    (tmp_path / "empty").mkdir()
    for source in ("pipe.txt", "circle.txt", "nowhere.txt", "none.txt", "empty"):
        refused(tmp_path / source, source)
    refused(Path("/dev/zero"), "is a pipe, socket or device")
    with pytest.raises(ValueError, match=r"pipe.txt|circle.txt"):
        source_files([tmp_path])


@pytest.mark.parametrize("name", ["a\nb.txt", "a\x1b[31m.txt", "a\udcff.txt", "ä b.txt", "-.txt"])
def test_odd_names_are_read_and_said_on_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("good")
    assert list(read_documents([file])) == [b"good"]
    file.write_bytes(b"\x7fELF" + b"a" * 80)
    with pytest.raises(ValueError, match="is a program") as said:
        list(read_documents([file]))
    assert str(said.value).isprintable()


def test_out_of_file_descriptors_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "good.jsonl"
    file.write_text(json.dumps({"text": "a"}))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        refused(file, "good.jsonl cannot be read: .*Too many open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_arrow_says_in_several_lines_is_one(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"]}), out)
    data = out.getvalue()
    file = tmp_path / "bad.parquet"
    for footer in (bytes(4), b"\x01\0\0\0"):
        file.write_bytes(data[:-8] + footer + data[-4:])
        refused(file, "cannot be read|expected a Parquet")
