"""Columns of paths are recognised, and the files they name are found or reported."""

from pathlib import Path

import pandas as pd
import pytest

from foretune.data.media import (
    BrokenMediaError,
    Media,
    in_threads,
    is_hidden,
    kind_of,
    located,
    media_of,
    path_columns,
    require,
)
from foretune.data.transcripts import transcripts
from foretune.errors import ConfigError, DataError


def table(**columns):
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "image"),
        (Path("b/c.flac"), "audio"),
        ("a.tar.png", "image"),
        ("a.txt", None),
        ("jpg", None),
        ("", None),
    ],
)
def test_kind_by_ending(name, kind):
    assert kind_of(name) == kind


def test_system_files_are_hidden():
    assert all(map(is_hidden, [".DS_Store", "._a.jpg", "__MACOSX", "Thumbs.db", "desktop.ini"]))
    assert not any(map(is_hidden, ["a.jpg", "thumbs", "_MG_1.jpg"]))


def test_the_column_of_paths_is_found():
    found = table(id=[1, 2], label=["a", "b"], pic=["x/1.jpg", "2.PNG"])
    assert media_of(found) == Media("pic", "image")


@pytest.mark.parametrize("name", ["audio_filepath", "path", "Clip"])
def test_sounds_by_any_name(name):
    assert media_of(table(text=["yes", "no"], **{name: ["1.wav", "2.mp3"]})) == Media(name, "audio")


def test_a_known_name_wins_over_the_first():
    assert media_of(table(thumbnail=["a.png"], image=["b.png"])) == Media("image", "image")


@pytest.mark.parametrize(
    "columns",
    [
        {"text": ["see a.jpg for more", "nothing"], "label": ["a", "b"]},
        {"n": [1, 2]},
        {"text": [None, None]},
        {"text": []},
        {"tokens": [["a.jpg"], ["b.jpg"]]},
    ],
)
def test_tables_without_media(columns):
    assert media_of(table(**columns)) is None


def test_a_few_blank_or_odd_values_do_not_hide_the_column():
    assert media_of(table(path=[*["a.jpg"] * 18, None, "b.txt"])) == Media("path", "image")
    assert media_of(table(path=[*["a.jpg"] * 5, *["b.txt"] * 5])) is None


def test_masks_beside_pictures():
    both = table(mask=["m/1.png"], image=["i/1.jpg"])
    assert media_of(both) == Media("image", "image")
    assert [name for _, name, _ in sorted(path_columns(both))] == ["image", "mask"]


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_relative_paths_count_from_the_folder_of_the_table(tmp_path):
    make(tmp_path, "wav/a.wav", "wav/b.wav")
    given = table(path=["wav/a.wav", str(tmp_path / "wav" / "b.wav")], label=["x", "y"])
    given.attrs["folder"] = tmp_path
    found = located(given, Media("path", "audio"))
    assert found["path"].tolist() == [str(tmp_path / "wav" / "a.wav"), str(tmp_path / "wav" / "b.wav")]
    assert found.attrs["media"] == "audio" and found["label"].tolist() == ["x", "y"]
    assert given["path"][0] == "wav/a.wav"


def test_files_in_a_usual_folder_beside_the_table(tmp_path):
    make(tmp_path, "clips/a.mp3")
    assert located(table(path=["a.mp3"]), Media("path", "audio"), tmp_path)["path"][0].endswith("clips/a.mp3")


def test_one_missing_file_does_not_hide_where_the_others_are(tmp_path):
    make(tmp_path, "clips/b.mp3")
    found = refused(["a.mp3", "b.mp3"], tmp_path, "audio")
    assert "1 file of 2" in found and "a.mp3 (row 1)" in found


def refused(values, folder, kind="image"):
    with pytest.raises(DataError) as caught:
        located(table(path=values), Media("path", kind), folder)
    return str(caught.value)


def test_missing_files_are_counted_and_named(tmp_path):
    make(tmp_path, "0.jpg")
    found = refused([f"{i}.jpg" for i in range(1_501)], tmp_path)
    assert (
        "1,500 files of 1,501" in found and "1.jpg (row 2), 2.jpg (row 3)" in found and str(tmp_path) in found
    )


def test_rows_without_a_path_are_named(tmp_path):
    make(tmp_path, "a.jpg")
    assert "Rows 2, 4 of column 'path': no path" in refused(["a.jpg", None, "a.jpg", " "], tmp_path)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [("b.heic", "magick FILE"), ("b.wav", "Pictures end in"), ("https://x.org/b", "Download the files")],
)
def test_other_files_are_named_with_a_remedy(tmp_path, value, remedy):
    make(tmp_path, "a.jpg")
    found = refused(["a.jpg", value], tmp_path)
    assert "Row 2" in found and value in found and remedy in found


def test_sounds_in_a_foreign_format_are_recognised_as_sounds(tmp_path):
    assert media_of(table(path=["a.m4a", "b.m4a"])) == Media("path", "audio")
    assert "ffmpeg -i FILE" in refused(["a.m4a"], tmp_path, "audio")


def test_threads_keep_the_order_and_raise():
    assert in_threads(lambda n: n * n, range(100)) == [n * n for n in range(100)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, [1, 0])


def test_an_error_of_one_file_says_which(tmp_path):
    error = BrokenMediaError(tmp_path / "a.jpg", "the file is empty")
    assert (error.path, error.reason) == (str(tmp_path / "a.jpg"), "the file is empty")
    assert str(error) == f"{tmp_path / 'a.jpg'}: the file is empty. Replace the file, or leave its row out."


def test_a_missing_package_names_its_extra():
    with pytest.raises(ConfigError, match=r"no_such_package .* pip install 'foretune\[audio\]'"):
        require("no_such_package", "audio")
    require("numpy", "image")


# Manifests of speech recognition


@pytest.mark.parametrize("name", ["text", "sentence", "transcription", "said"])
def test_manifest(tmp_path, name):
    make(tmp_path, "a.wav", "b.wav")
    found = transcripts(table(audio=["a.wav", "b.wav"], **{name: ["one", "Two "]}), folder=tmp_path)
    assert list(found.columns) == ["path", "text"]
    assert found["path"].tolist() == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert found["text"].tolist() == ["one", "Two "]
    assert found.attrs["format"] == "transcripts" and found.attrs["media"] == "audio"


def test_of_several_columns_the_known_name_or_the_given_one(tmp_path):
    make(tmp_path, "a.wav")
    given = table(path=["a.wav"], speaker=["s1"], text=["one"], raw=["ONE"])
    assert transcripts(given, folder=tmp_path)["text"].tolist() == ["one"]
    assert transcripts(given, text="raw", folder=tmp_path)["text"].tolist() == ["ONE"]


def no_manifest(given, folder, **options):
    with pytest.raises(DataError) as caught:
        transcripts(given, folder=folder, **options)
    return str(caught.value)


def test_faults_of_manifests(tmp_path):
    make(tmp_path, "a.wav")
    sounds = ["a.wav", "a.wav", "a.wav"]
    empty = table(path=sounds, text=["one", " ", None])
    assert "Rows 2, 3 of column 'text': the transcript is empty" in no_manifest(empty, tmp_path)
    assert "Row 2 of column 'text': a int" in no_manifest(table(path=sounds, text=["a", 5, "b"]), tmp_path)
    assert "cannot be told" in no_manifest(table(path=sounds, a=["x"] * 3, b=["y"] * 3), tmp_path)
    assert "Did you mean 'text'?" in no_manifest(empty, tmp_path, text="txt")
    assert "No column holds the paths of sounds" in no_manifest(table(text=["a"], b=["c"]), tmp_path)
    assert "2 files of 2" in no_manifest(table(path=["x.wav", "y.wav"], text=["a", "b"]), tmp_path)
