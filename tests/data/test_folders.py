"""A folder per class becomes a table; what is no set of class folders is explained."""

import pytest

from foretune.data.folders import read_folder
from foretune.errors import DataError


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def labels(root, split="train"):
    return read_folder(root, split)["label"].tolist()


def refused(root, split="train"):
    with pytest.raises(DataError) as caught:
        read_folder(root, split)
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_class_folders(tmp_path):
    table = read_folder(
        make(tmp_path, "dog/2.jpg", "dog/1.JPEG", "cat/1.png", "bird/x/deep.webp", "bird/a.bmp")
    )
    assert table["label"].tolist() == ["bird", "bird", "cat", "dog", "dog"]
    assert table["path"].tolist()[2:] == [str(tmp_path / n) for n in ("cat/1.png", "dog/1.JPEG", "dog/2.jpg")]
    assert table.attrs == {"format": "folder", "media": "image"}


def test_sounds(tmp_path):
    table = read_folder(make(tmp_path, "yes/1.wav", "no/1.mp3"))
    assert table.attrs["media"] == "audio" and table["label"].tolist() == ["no", "yes"]


def test_system_files_are_passed_over(tmp_path):
    noise = [
        "Thumbs.db",
        ".DS_Store",
        "cat/.DS_Store",
        "cat/._1.jpg",
        "cat/Thumbs.db",
        "__MACOSX/cat/._1.jpg",
    ]
    make(
        tmp_path, "cat/1.jpg", "dog/1.jpg", ".git/HEAD", *noise, "README.md", "dog/notes.txt", "dog/.x/2.jpg"
    )
    assert labels(tmp_path) == ["cat", "dog"]


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Val"])
def test_splits_by_their_usual_names(tmp_path, name):
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{name}/a/2.jpg", f"{name}/b/3.jpg")
    assert read_folder(tmp_path, "dev")["path"].str.contains(f"/{name}/").all()
    assert read_folder(tmp_path, name)["path"].tolist() == read_folder(tmp_path, "dev")["path"].tolist()
    assert read_folder(tmp_path)["path"].str.contains("/train/").all()


def test_splits_by_their_own_names(tmp_path):
    make(tmp_path, *(f"fold{i}/{name}/1.ogg" for i in (1, 2) for name in "ab"))
    assert read_folder(tmp_path, "fold2")["path"].str.contains("/fold2/").all()
    found = refused(tmp_path)
    assert "folders of folders (fold1/a …)" in found and "fold1, fold2 splits?" in found
    assert "Did you mean 'fold2'?" in refused(tmp_path, "fold3")


def test_a_missing_split_names_the_others(tmp_path):
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg")
    assert "no split 'test'" in refused(tmp_path, "test") and "train, val" in refused(tmp_path, "test")
    assert "not divided into splits" in refused(tmp_path / "train", "test")


def test_a_class_may_be_called_like_a_split(tmp_path):
    assert labels(make(tmp_path, "train/1.jpg", "bus/1.jpg", "test/1.jpg")) == ["bus", "test", "train"]


def test_a_single_folder_around_everything(tmp_path):
    assert labels(make(tmp_path, "pets/v2/cat/1.jpg", "pets/v2/dog/1.jpg")) == ["cat", "dog"]


def test_classes_with_one_inner_folder_each(tmp_path):
    assert labels(make(tmp_path, "n01/images/1.jpg", "n02/images/1.jpg")) == ["n01", "n02"]


def test_a_mixture_of_kinds_names_the_classes(tmp_path):
    found = refused(make(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/1.wav"))
    assert "mixes 3 pictures and 1 sound" in found and "'dog'" in found and "'cat'" not in found


def test_empty_class_folders_are_named(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", "fox/notes.txt", "owl/.keep")
    found = refused(tmp_path)
    assert "'fox', 'owl'" in found and "notes.txt" in found


def test_classes_of_files_that_cannot_be_read_come_with_a_remedy(tmp_path):
    found = refused(make(tmp_path, "a/1.heic", "b/1.heic"))
    assert "'a', 'b'" in found and "magick FILE FILE.png" in found


def test_no_class_folders(tmp_path):
    found = refused(make(tmp_path, "1.jpg", "2.jpg"))
    assert "no class folders: 1.jpg, 2.jpg" in found and "cat/1.jpg" in found


def test_one_class_only(tmp_path):
    assert "one class only, 'cat'" in refused(make(tmp_path, "cat/1.jpg", "cat/2.jpg"))


def test_loose_files_beside_class_folders(tmp_path):
    assert "outside any class folder: 3.jpg" in refused(make(tmp_path, "cat/1.jpg", "dog/1.jpg", "3.jpg"))


def test_nothing_at_all(tmp_path):
    assert "no folders and no media" in refused(tmp_path)
    assert "is no folder" in refused(tmp_path / "nowhere")


def test_links_to_class_folders_are_followed(tmp_path):
    make(tmp_path / "store", "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "set").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    assert labels(tmp_path / "set") == ["cat", "dog"]
