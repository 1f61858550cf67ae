"""Bytes in cells become files under safe names, once."""

import pandas as pd
import pytest

from foretune.data.media_cells import (
    cell_of,
    file_name,
    sniffed,
    sniffed_kinds,
    unpacked_cells,
    unpacked_frame,
)

PNG = b"\x89PNG\r\n\x1a\nrest"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (PNG, ".png"),
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"GIF89a", ".gif"),
        (b"RIFF1234WEBPVP8 ", ".webp"),
        (WAV, ".wav"),
        (b"OggS\x00", ".ogg"),
        (b"fLaC", ".flac"),
        (b"ID3\x03", ".mp3"),
        (b"\xff\xfb\x90", ".mp3"),
        (b"II*\x00", ".tif"),
        (b"\x00\x00\x00\x1cftypM4A ", ".m4a"),
        (b"a text", None),
        (b"", None),
    ],
)
def test_files_are_told_by_their_first_bytes(data, suffix):
    assert sniffed(data) == suffix


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("dogs/rex.JPEG", "-rex.jpeg"),
        ("rex", "-rex.png"),
        (None, ".png"),
        ("../../etc/passwd", "-passwd.png"),
        ("..\\..\\rex.png", "-rex.png"),
        ("/a/b:c*?.png", "-b_c.png"),
        ("rex.heic", "-rex.heic"),  # named, so that the error can tell what to do
        ("狗.png", "-狗.png"),
        ("a" * 300 + ".png", f"-{'a' * 50}.png"),
        ("..", ".png"),
        ("nul\0l.png", "-nul_l.png"),
    ],
)
def test_names_are_safe(path, ending):
    name = file_name(PNG, path, "image")
    folder, _, rest = name.partition("/")
    assert rest[32:] == ending and rest.startswith(folder) and len(folder) == 2 and "/" not in rest


def test_what_is_no_picture_keeps_a_name_to_be_reported_by():
    assert file_name(b"?", "a.txt", "image").endswith("-a.png") and file_name(b"?", None, "audio").endswith(
        ".wav"
    )


def batches(*cells, size=2):
    """Return a reader of one column, and the list of how often it was read."""
    reads = []

    def read():
        reads.append(len(cells))
        return [{"a": list(cells[i : i + size])} for i in range(0, len(cells), size)]

    return read, reads


def test_files_are_written_once(cache):
    read, reads = batches((PNG, "a.png"), (PNG, "b.png"), (PNG, "a.png"), (None, "c.png"), (None, None))
    found = unpacked_cells(read, {"a": "image"}, "set")["a"]
    assert reads == [5, 5] and unpacked_cells(read, {"a": "image"}, "set")["a"] == found and len(reads) == 3
    assert found[0] == found[2] != found[1] and found[3:] == ["c.png", None]
    assert [open(path, "rb").read() for path in found[:2]] == [PNG, PNG]  # noqa: PTH123, SIM115
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 2


def test_other_contents_have_another_folder():
    one, two = (
        unpacked_cells(batches((data, "a.png"))[0], {"a": "image"}, "set")["a"][0].split("unpacked/")[1][:32]
        for data in (PNG, PNG + b"more")
    )
    assert one != two


def test_nothing_to_unpack(cache):
    read, reads = batches((None, "c.png"))
    assert unpacked_cells(read, {"a": "image"}, "set") == {"a": ["c.png"]}
    assert len(reads) == 1 and not cache.exists()


def test_kinds_by_the_first_bytes():
    table = {
        "a": [(None, None), (PNG, None)],
        "b": [(WAV, None)] * 2,
        "c": [(b"?", None)] * 2,
        "d": [(None, None)] * 2,
    }
    assert sniffed_kinds([table], table) == {"a": "image", "b": "audio"}
    assert sniffed_kinds([{"a": [(None, None)]}, {"a": [(WAV, None)]}], "a") == {"a": "audio"}


def test_cells():
    assert cell_of({"bytes": PNG, "path": "a"}) == (PNG, "a") and cell_of({"path": "a"}) == (None, "a")
    assert cell_of(PNG) == (PNG, None) and cell_of(None) == cell_of(float("nan")) == (None, None)


def test_frames_of_other_things_stay_as_they_are():
    table = pd.DataFrame(
        {"n": [1, 2], "d": [{"path": "a"}, {"path": "b"}], "b": [b"x", b"y"], "t": ["a", None]}
    )
    assert unpacked_frame(table) is table
