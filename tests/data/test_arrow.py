"""Pictures, sounds, tags, answers and translations as `datasets` and parquet files hold them."""

import io
import json
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretune.data import arrow
from foretune.data.columns import Columns
from foretune.data.infer import infer_task
from foretune.data.questions import read_questions
from foretune.data.read import read_table
from foretune.errors import DataError

N = 6
PICTURES = ("image-classification", "image", "label")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(number):
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("RGB", (6, 4), (40 * number, 0, 0)).save(data, "PNG")
    return data.getvalue()


def wav(number):
    soundfile = pytest.importorskip("soundfile")
    data = io.BytesIO()
    soundfile.write(data, np.full(80, number / 10, np.float32), 8000, format="WAV")
    return data.getvalue()


def pictures(**more):
    """Return a datasets.Dataset of pictures whose second has no name and whose third is told by a path alone."""
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    cells = [{"bytes": png(i), "path": f"pets/{i}.PNG"} for i in range(N)]
    cells[1]["path"] = None
    columns = {"image": cells, "label": [i % 2 for i in range(N)], **more}
    features |= {name: datasets.Value("int64") for name in more}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def parquet(folder, data, name="a.parquet"):
    data.to_parquet(folder / name)
    return folder / name


def inferred(table, **options):
    found = infer_task(table, **options)
    return found.task, found.columns.text, found.columns.target


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize("as_file", [True, False])
def test_pictures_become_files(tmp_path, cache, as_file):
    data = pictures(id=list(range(N)))
    table = read_table(parquet(tmp_path, data) if as_file else data)
    assert list(table) == ["image", "label", "id"] and inferred(table) == PICTURES
    assert table["label"].tolist() == ["cat", "dog"] * 3 and table["id"].tolist() == list(range(N))
    written = [open(path, "rb").read() for path in table["image"]]  # noqa: PTH123, SIM115
    assert written == [png(i) for i in range(N)]
    assert table["image"][0].endswith("-0.png") and table["image"][1].endswith(".png")
    assert len(files(cache)) == N


def test_file_and_data_set_share_their_files(tmp_path, cache):
    first = read_table(parquet(tmp_path, pictures()))
    times = [path.stat().st_mtime_ns for path in files(cache)]
    second = read_table(pictures())
    assert second["image"].tolist() == first["image"].tolist()
    assert [path.stat().st_mtime_ns for path in files(cache)] == times


def test_chosen_rows_and_splits():
    datasets = pytest.importorskip("datasets")
    data = pictures()
    both = datasets.DatasetDict({"train": data.select([3, 1]), "validation": data.select([0])})
    assert [open(p, "rb").read() for p in read_table(both)["image"]] == [png(3), png(1)]  # noqa: PTH123, SIM115
    assert len(read_table(both, split="dev")) == 1
    with pytest.raises(DataError, match=r"no split 'test'. It has: train, validation"):
        read_table(both, split="test")


def sounds_table(notes=True):
    cells = [{"bytes": wav(i), "path": f"{i}.wav"} for i in range(N)]
    table = pa.table({"audio": cells, "text": [f"a sentence of words {i}" for i in range(N)]})
    told = {"audio": {"sampling_rate": 8000, "_type": "Audio"}, "text": {"dtype": "string", "_type": "Value"}}
    meta = {"huggingface": json.dumps({"info": {"features": told}})}
    return table.replace_schema_metadata(meta if notes else None)


@pytest.mark.parametrize("notes", [True, False])
def test_sounds_with_or_without_notes(tmp_path, notes):
    pq.write_table(sounds_table(notes), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert inferred(table) == ("speech-recognition", "audio", "text")
    import soundfile

    assert soundfile.info(table["audio"][2]).frames == 80


def test_plain_bytes_are_told_by_their_contents(tmp_path):
    table = pa.table({"jpg": [png(i) for i in range(N)], "blob": [b"\x01\x02"] * N, "label": ["a", "b"] * 3})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert inferred(found) == ("image-classification", "jpg", "label")
    assert found["blob"].tolist() == [b"\x01\x02"] * N and found["jpg"].str.endswith(".png").all()


def test_a_table_of_nothing_but_pictures(tmp_path):
    pq.write_table(pa.table({"image": [png(i) for i in range(N)]}), tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet")) == ["image"]
    assert list(read_table(pictures().select_columns(["image"]))) == ["image"]


def test_paths_and_gaps_stay(tmp_path):
    cells = [{"bytes": None, "path": "/there/a.png"}, {"bytes": png(1), "path": "b.png"}, None]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b", "a"]}), tmp_path / "a.parquet")
    first, second, third = read_table(tmp_path / "a.parquet")["image"]
    assert first == "/there/a.png" and second.endswith("-b.png") and third is None


def test_a_frame_and_a_list_hold_pictures_too():
    cells = [{"bytes": png(i), "path": None} for i in range(N)]
    frame = pd.DataFrame({"image": cells, "label": ["a", "b"] * 3})
    assert inferred(read_table(frame)) == PICTURES
    assert inferred(read_table(frame.to_dict("records"))) == PICTURES
    assert isinstance(frame["image"][0], dict)  # the user's own is as it was


def test_packed_and_damaged_files(tmp_path):
    import gzip

    file = parquet(tmp_path, pictures())
    packed = tmp_path / "b.parquet.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert inferred(read_table(packed)) == PICTURES
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable parquet"):
        read_table(file)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_table(file)


def test_pictures_are_not_held_in_memory(tmp_path, monkeypatch):
    """Of 300 pictures of 100 kB only a batch is held at a time."""
    monkeypatch.setattr(arrow, "_ROWS", 10)
    head, chance = b"\x89PNG\r\n\x1a\n", np.random.default_rng(0)
    schema = pa.schema([("image", pa.binary()), ("label", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for _ in range(30):
            cells = [head + chance.bytes(100_000) for _ in range(10)]
            writer.write_table(pa.table({"image": cells, "label": ["a", "b"] * 5}, schema=schema))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        table = read_table(tmp_path / "a.parquet")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(table["image"])) == 300
    assert peak < 10_000_000 and pa.total_allocated_bytes() - before < 10_000_000


def sentences():
    datasets = pytest.importorskip("datasets")
    tags = datasets.ClassLabel(names=["O", "B-PER", "I-PER"])
    features = datasets.Features(
        {"id": datasets.Value("string"), "tokens": datasets.List(datasets.Value("string")),
         "pos_tags": datasets.List(datasets.ClassLabel(names=["NOUN", "VERB"])), "ner_tags": datasets.List(tags)}
    )  # fmt: skip
    columns = {
        "id": ["0", "1"],
        "tokens": [["Ada", "Byron", "writes"], ["rain"]],
        "pos_tags": [[0, 0, 1], [0]],
        "ner_tags": [[1, 2, 0], [0]],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("as_file", [True, False])
def test_tags_of_tokens(tmp_path, as_file):
    data = sentences()
    table = read_table(parquet(tmp_path, data) if as_file else data)
    assert table["ner_tags"].tolist() == [["B-PER", "I-PER", "O"], ["O"]]
    assert table["pos_tags"].tolist() == [["NOUN", "NOUN", "VERB"], ["NOUN"]]
    assert inferred(table) == ("token-labelling", "tokens", "ner_tags")


def questions():
    datasets = pytest.importorskip("datasets")
    answers = {"text": datasets.Value("string"), "answer_start": datasets.Value("int32")}
    texts = {name: datasets.Value("string") for name in ("id", "title", "context", "question")}
    features = datasets.Features({**texts, "answers": datasets.Sequence(answers)})
    context = "The mill was built in 1820 by two brothers."
    columns = {
        "id": ["q1", "q2"],
        "title": ["Mill", "Mill"],
        "context": [context, context],
        "question": ["When was the mill built?", "Who painted it?"],
        "answers": [
            {"text": ["1820", "in 1820"], "answer_start": [22, 19]},
            {"text": [], "answer_start": []},
        ],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("as_file", [True, False])
def test_questions(tmp_path, as_file):
    data = questions()
    table = read_table(parquet(tmp_path, data) if as_file else data)
    found = infer_task(table)
    assert (found.task, found.columns) == (
        "question-answering",
        Columns("question", "answers", found.columns.reason, second="context"),
    )
    read = read_questions(table, found.columns)
    assert read.answers == [[(22, "1820"), (19, "in 1820")], []] and read.ids == ["q1", "q2"]


def translations(languages=("de", "pt_br"), rows=8):
    datasets = pytest.importorskip("datasets")
    cells = [{code: f"{code} sentence number {i}" for code in languages} for i in range(rows)]
    features = datasets.Features({"translation": datasets.Translation(languages=list(languages))})
    return datasets.Dataset.from_dict({"translation": cells}, features=features)


@pytest.mark.parametrize("as_file", [True, False])
def test_translations(tmp_path, as_file):
    data = translations()
    table = read_table(parquet(tmp_path, data) if as_file else data)
    assert list(table) == ["de", "pt_br"] and table["de"][3] == "de sentence number 3"
    assert inferred(table) == ("translation", "de", "pt_br")
    assert inferred(table, text="pt_br") == ("translation", "pt_br", "de")
    assert inferred(table, target="de") == ("translation", "pt_br", "de")


def test_translations_of_several_languages_are_chosen():
    table = read_table(translations(("en", "de", "xx")))
    assert inferred(table, text="xx", target="en") == ("translation", "xx", "en")
    assert infer_task(table, need_target=False).task != "translation"
