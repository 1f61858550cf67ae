"""Zip files are unpacked once; those that could write elsewhere or fill the disk are refused."""

import shutil
import stat
import zipfile
from collections import namedtuple

import pytest

from foretune.data import archive
from foretune.data.archive import unpack
from foretune.errors import DataError, ResourceError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(folder, entries, name="a.zip", **options):
    path = folder / name
    with zipfile.ZipFile(path, "w", **options) as file:
        for entry, content in entries.items():
            file.writestr(entry, content)
    return path


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(path, error=DataError):
    with pytest.raises(error) as caught:
        unpack(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_contents_arrive_without_system_files(tmp_path):
    entries = {
        "set/cat/1.jpg": b"one",
        "set/dog/2.jpg": b"two",
        "__MACOSX/set/._1.jpg": b"",
        "set/.DS_Store": b"",
    }
    folder = unpack(zipped(tmp_path, entries))
    assert everything_in(folder) == ["set/cat/1.jpg", "set/dog/2.jpg"]
    assert (folder / "set/dog/2.jpg").read_bytes() == b"two"


def test_the_same_bytes_are_unpacked_once(tmp_path):
    path = zipped(tmp_path, {"a/1.jpg": b"one"})
    folder = unpack(path)
    (folder / "a/1.jpg").write_bytes(b"mark")
    shutil.copy(path, tmp_path / "copy.zip")
    assert unpack(tmp_path / "copy.zip") == folder and (folder / "a/1.jpg").read_bytes() == b"mark"
    assert unpack(zipped(tmp_path, {"a/1.jpg": b"other"})) != folder


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "a\\..\\evil.jpg"]
)
def test_paths_that_leave_the_folder(tmp_path, cache, name):
    path = zipped(tmp_path, {"a/1.jpg": b"one", name: b"evil"})
    found = refused(path)
    assert "1 entry" in found and "evil.jpg" in found
    assert everything_in(tmp_path) == ["a.zip"] and not cache.exists()


def test_links(tmp_path, cache):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("a/passwords")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert "a/passwords" in refused(path) and not cache.exists()


def test_bombs(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "HARMLESS_BYTES", 1_000_000)
    bomb = zipped(tmp_path, {"a.jpg": bytes(2_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert "decompression bomb" in refused(bomb) and not cache.exists()
    honest = zipped(tmp_path, {"a.jpg": bytes(2_000_000)}, "stored.zip")
    assert (unpack(honest) / "a.jpg").stat().st_size == 2_000_000


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ENTRY_LIMIT", 2)
    assert "3 files" in refused(zipped(tmp_path, {f"{i}.jpg": b"x" for i in range(3)}))


def test_an_entry_that_lies_about_its_size(tmp_path, cache):
    path = zipped(tmp_path, {"a.jpg": bytes(5_000)}, compression=zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    assert data.count((5_000).to_bytes(4, "little")) == 2
    path.write_bytes(data.replace((5_000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    assert "no readable zip file" in refused(path)
    assert everything_in(cache) == []


def test_damaged_archives_leave_nothing_behind(tmp_path, cache):
    path = zipped(tmp_path, {"a.jpg": b"one" * 1_000, "b.jpg": b"two" * 1_000})
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    assert "Copy or download it again" in refused(path) and everything_in(cache) == []
    path.write_bytes(data[:500])
    assert "no readable zip file" in refused(path)


def test_encrypted_archives(tmp_path):
    path = zipped(tmp_path, {"a.jpg": b"one"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # of the local header
    data[data.index(b"PK\1\2") + 8] |= 1  # of the list of contents
    path.write_bytes(data)
    assert "is encrypted" in refused(path)


def test_an_empty_archive(tmp_path):
    assert "holds no files" in refused(zipped(tmp_path, {".DS_Store": b""}))


def test_no_room_on_the_disk(tmp_path, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: usage(10, 10, 0))
    found = refused(zipped(tmp_path, {"a.jpg": b"one"}), ResourceError)
    assert "FORETUNE_CACHE" in found and everything_in(cache) == []


def test_a_missing_file(tmp_path):
    assert "cannot be unpacked" in refused(tmp_path / "nowhere.zip", ResourceError)
