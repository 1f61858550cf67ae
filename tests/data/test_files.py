"""Missing, damaged and wrongly encoded files: each error says what was found and what to do."""

import gzip
import shutil
import subprocess

import pytest

from foretune.data.files import decode, file_format, read_bytes
from foretune.data.read import read_table
from foretune.errors import DataError

needs_iconv = pytest.mark.skipif(not shutil.which("iconv"), reason="iconv is not installed")


def message(source, **options):
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    return str(caught.value)


def test_missing_file_offers_the_nearest_names(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    found = message(tmp_path / "trian.csv")
    assert "No such file" in found and "'train.csv'" in found


def test_missing_file_lists_tables_when_no_name_is_near(tmp_path):
    (tmp_path / "reviews.jsonl").write_text("{}")
    (tmp_path / "notes.md").write_text("")
    found = message(tmp_path / "zz.csv")
    assert "reviews.jsonl" in found and "notes.md" not in found


def test_missing_folder_is_named(tmp_path):
    assert "no folder" in message(tmp_path / "nowhere" / "train.csv")


def test_directory_names_the_tables_inside(tmp_path):
    (tmp_path / "train.csv.gz").write_bytes(b"")
    found = message(tmp_path)
    assert "is a directory" in found and "train.csv.gz" in found


def test_directory_without_tables_says_what_is_expected(tmp_path):
    assert "parquet" in message(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a.parquet", "a.csv.gz"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert "is empty" in message(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.tsv"])
def test_file_of_line_breaks_is_empty(tmp_path, name):
    (tmp_path / name).write_bytes(b"\n\n")
    assert "is empty" in message(tmp_path / name)


@pytest.mark.parametrize("content", [b"\n\n", gzip.compress(b"", mtime=0)])
def test_jsonl_without_rows(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert "no rows" in message(tmp_path / "a.jsonl")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,b\n")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    assert "Permission denied" in message(path)


def test_unknown_extension_lists_the_formats(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    found = message(tmp_path / "a.xlsx")
    assert "'.xlsx'" in found and "jsonl" in found


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\n" + b"hello,x\n" * 1000)[:-12])
    found = message(path)
    assert "is cut off" in found and "gzip -t" in found


def test_not_gzip_at_all(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_text("text,label\na,b\n")
    found = message(path)
    assert "not valid gzip" in found and "drop .gz" in found


def test_damaged_gzip_body(tmp_path):
    data = bytearray(gzip.compress(b"text,label\n" + bytes(range(32, 127)) * 40))
    data[20:40] = b"\xff" * 20
    (tmp_path / "a.csv.gz").write_bytes(data)
    assert "not valid gzip" in message(tmp_path / "a.csv.gz")


def test_gzip_is_recognised_without_its_extension(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"text,label\na,b\n"))
    assert read_bytes(tmp_path / "a.csv") == b"text,label\na,b\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_is_no_part_of_the_header(tmp_path, encoding):
    (tmp_path / "a.csv").write_text("text,label\n好,b\n", encoding=encoding)
    assert list(read_table(tmp_path / "a.csv").columns) == ["text", "label"]


@needs_iconv
def test_gb18030_names_line_byte_and_a_command_that_works(tmp_path):
    path = tmp_path / "评论 1.csv"
    text = "text,label\nfine,good\n房间很好，服务态度不错,good\n"
    path.write_bytes(text.encode("gb18030"))
    found = message(path)
    assert "line 3" in found and "byte 0xB7" in found and "decodes as gb18030" in found
    command = found.split("convert it: ")[1]
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "评论 1.utf8.csv").read_text("utf-8") == text


@needs_iconv
def test_cp1252_gz_command_works(tmp_path):
    path = tmp_path / "a.csv.gz"
    text = "text,label\n“Café” très agréable,good\n"
    path.write_bytes(gzip.compress(text.encode("cp1252")))
    found = message(path)
    assert "line 2" in found and "byte 0x93" in found and "decodes as cp1252" in found
    subprocess.run(found.split("convert it: ")[1], shell=True, check=True)
    assert gzip.decompress((tmp_path / "a.utf8.csv.gz").read_bytes()).decode() == text


def test_neither_encoding_fits():
    with pytest.raises(DataError, match=r"line 1 holds byte 0x81.*neither") as caught:
        decode(b"\x81 \x8d \xff", "a.csv")
    assert "Save it as UTF-8" in str(caught.value)


def test_utf16_is_recognised(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\na,b\n".encode("utf-16"))
    found = message(tmp_path / "a.csv")
    assert "is UTF-16" in found and "iconv -f UTF-16 -t UTF-8" in found


def test_nul_bytes_are_counted_and_placed(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\na,b\nc\0\0,d\n")
    found = message(tmp_path / "a.csv")
    assert "NUL byte in line 3 (2 in all)" in found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("A.CSV", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.ndjson", "jsonl"),
        ("a.gz", None),
        ("a", None),
        ("b.xlsx", None),
    ],
)
def test_format_by_extension(name, kind):
    assert file_format(name) == kind
