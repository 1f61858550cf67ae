"""A folder per class, of pictures or of sounds, as a table of paths and labels."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from foretune.data.media import FOREIGN, NOUNS, conversion, is_hidden, kind_of
from foretune.data.text import counted, listed
from foretune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

LEARNT = 2  # classes that can be told apart, at least
#: The usual names of the folders of a split, by the name that Foretune uses.
SPLITS = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def read_folder(path: str | os.PathLike[str], split: str = "train", fewest: int = LEARNT) -> pd.DataFrame:
    """Return columns `path` (absolute) and `label` of the media below one folder per class.

    The class folders lie in `path`, or in a folder of it for each split (`train/cat`, `val/cat`), of which
    `split` is taken: train, dev, test (each also by its other usual names) or a folder's own name. A
    single folder around everything is passed through. Rows are sorted by path; `attrs["media"]` is "image"
    or "audio".
    Raises DataError where folders of classes are missing, fewer than `fewest`, empty, or mix pictures and sounds.
    """
    import pandas as pd

    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{root} is no folder. Expected one with a folder of pictures or sounds per class.")
    top = split_folder(unwrapped(root), split)
    files = {folder.name: _media_below(folder) for folder in folders_in(top)}
    kind = _checked(top, files, fewest)
    rows = [(file, label) for label, found in files.items() for file in found]
    table = pd.DataFrame(rows, columns=["path", "label"])
    table.attrs.update(format="folder", media=kind)
    return table


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in `folder` in order of their names, hidden ones left out."""
    return sorted(item for item in folder.iterdir() if item.is_dir() and not is_hidden(item.name))


def files_in(folder: Path) -> list[Path]:
    """Return the files in `folder` in order of their names, hidden ones left out."""
    return sorted(item for item in folder.iterdir() if item.is_file() and not is_hidden(item.name))


def media_in(place: Path, kind: str) -> list[str]:
    """Return the absolute path of a picture or sound, or those in a folder itself, in order of their names."""
    files = files_in(place) if place.is_dir() else [place] if place.is_file() else []
    return [str(item.absolute()) for item in files if kind_of(item.name) == kind]


def unwrapped(root: Path) -> Path:
    """Return the one folder in `root` where there is nothing else and it holds folders, as in many archives."""
    inner = folders_in(root)
    if len(inner) == 1 and not files_in(root) and folders_in(inner[0]) and not _has_media(inner[0]):
        return unwrapped(inner[0])
    return root


def split_name(folder: str) -> str | None:
    """Return "train", "dev" or "test" for a folder's (or file's) usual name of it, else None."""
    return next((split for split, names in SPLITS.items() if folder.lower() in names), None)


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of `split` where `root` holds one per split, else `root`.

    Raises DataError naming the splits where the wanted one is missing.
    """
    # A class may be called "test" as well; a split's folder holds folders and no media.
    inner = {item.name: item for item in folders_in(root) if folders_in(item) and not _has_media(item)}
    wanted = split_name(split) or split
    chosen = inner.get(split) or next((f for n, f in inner.items() if split_name(n) == wanted), None)
    if chosen is not None:
        return chosen
    known = [name for name in inner if split_name(name)]
    if known or (wanted != "train" and inner):
        names = known or list(inner)
        raise DataError(
            f"{root} holds no split {split!r}.{did_you_mean(split, names)} Its splits: {listed(names)}."
        )
    if wanted != "train":
        raise DataError(f"{root} is not divided into splits, so {split!r} cannot be taken from it.")
    return root


def _has_media(folder: Path) -> bool:
    return any(kind_of(item.name) for item in files_in(folder))


def _media_below(folder: Path) -> list[str]:
    """Return the paths of all media in `folder` and the folders in it, sorted."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [os.path.join(where, n) for n in names if kind_of(n) and not is_hidden(n)]  # noqa: PTH118
    return sorted(found)


def _checked(top: Path, files: dict[str, list[str]], fewest: int) -> str:
    """Return the one kind of media. Raises DataError for everything that is no set of class folders."""
    if not any(files.values()):
        raise _nothing(top)
    _check_depth(top)
    empty = [label for label, found in files.items() if not found]
    if empty:
        raise DataError(f"{_empty(top, empty)} Remove empty class folders, or fill them.")
    kinds = {label: Counter(kind_of(file) for file in found) for label, found in files.items()}
    total = sum(kinds.values(), Counter[str | None]())
    if len(total) > 1:
        raise _mixed(top, kinds, total)
    loose = [item.name for item in files_in(top) if kind_of(item.name)]
    if loose:
        raise DataError(
            f"{top} holds {counted(len(loose), 'file')} outside any class folder: {listed(loose)}. Move "
            f"each into the folder of its class, or name files and labels in a csv (path,label)."
        )
    if len(files) < fewest:
        raise DataError(
            f"{top} holds one class only, {next(iter(files))!r}. Expected a folder for each of at least two classes."
        )
    return str(next(iter(total)))


def _nothing(top: Path) -> DataError:
    """Return the error for a folder without class folders, saying what it holds instead."""
    expected = "Expected a folder per class, such as cat/1.jpg and dog/1.jpg"
    names = [item.name for item in files_in(top)]
    if any(kind_of(name) for name in names):
        return DataError(
            f"{top} holds pictures or sounds but no class folders: {listed(names)}. {expected}; or name "
            f"files and labels in a csv with the columns path and label."
        )
    inner = [item.name for item in folders_in(top)]
    if inner:
        return DataError(f"{_empty(top, inner)} {expected}.")
    return DataError(f"{top} holds no folders and no media. {expected}.")


def _empty(top: Path, labels: list[str]) -> str:
    """Say which class folders hold no media, and what the first of them holds."""
    inside = [item.name for item in files_in(top / labels[0])]
    foreign = next((name for name in inside if Path(name).suffix.lower() in FOREIGN), None)
    holds = f" ({labels[0]!r} holds {listed(inside, 3)})" if inside else ""
    hint = f" {conversion(foreign)}." if foreign else ""
    return f"{top}: no pictures or sounds in {listed([repr(label) for label in labels])}{holds}.{hint}"


def _mixed(top: Path, kinds: dict[str, Counter[str | None]], total: Counter[str | None]) -> DataError:
    """Return the error for pictures among sounds, naming the classes with the rarer kind."""
    rare = total.most_common()[-1][0]
    where = [label for label, counts in kinds.items() if counts[rare]]
    found = " and ".join(counted(total[kind], noun) for kind, noun in NOUNS.items())
    return DataError(
        f"{top} mixes {found}; the {NOUNS[str(rare)]}s are in {listed([repr(label) for label in where])}. "
        f"Expected one kind. Move the others away."
    )


def _check_depth(top: Path) -> None:
    """Folds or splits of unusual names would silently become classes."""
    outer = folders_in(top)
    inner = [[item.name for item in folders_in(folder)] for folder in outer]
    if any(_has_media(folder) for folder in outer) or not all(len(names) > 1 for names in inner):
        return
    raise DataError(
        f"{top} holds folders of folders ({outer[0].name}/{inner[0][0]} …), so the classes cannot be told. Are "
        f"{listed([folder.name for folder in outer])} splits? Pass one of them, or name it as the split."
    )
