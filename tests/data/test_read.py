"""Every source gives the same table."""

import gzip
import io
import json
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from foretune.data import read_table
from foretune.errors import ConfigError, DataError

ROWS = [("good film", "pos"), ("NA", "neg"), ("房间，很好", "pos")]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "text"


def frame():
    return pd.DataFrame(ROWS, columns=["text", "label"])


def message(source, **options):
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    return str(caught.value)


def write(path, kind):
    if kind == "parquet":
        frame().to_parquet(path)
        return
    records = [{"text": text, "label": label} for text, label in ROWS]
    text = {
        "csv": frame().to_csv(index=False),
        "tsv": frame().to_csv(index=False, sep="\t"),
        "jsonl": "".join(json.dumps(record) + "\n" for record in records),
        "json": json.dumps(records, indent=1),
    }[kind]
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("compressed", [False, True])
def test_formats_agree(tmp_path, kind, compressed):
    path = tmp_path / f"a.{kind}"
    write(path, kind)
    if compressed:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    table = read_table(str(path))
    assert list(table.itertuples(index=False, name=None)) == ROWS


def test_txt(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo, three\n")
    assert read_table(tmp_path / "a.txt").to_dict("list") == {"text": ["one", "two, three"]}


def test_txt_with_a_separator_is_a_table(tmp_path):
    (tmp_path / "a.txt").write_text("text;label\none;x\n")
    assert read_table(tmp_path / "a.txt", separator=";")["label"].tolist() == ["x"]


def test_file_without_extension_is_sniffed(tmp_path):
    (tmp_path / "data").write_text('{"text": "a"}\n')
    assert read_table(tmp_path / "data")["text"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("given", "columns", "rows"),
    [
        ('\n{"text": "a"}\n{"text": "b"}\n', ["text"], 2),
        ('[{"text": "a"}]', ["text"], 1),
        ("text,label\na,b\n", ["text", "label"], 1),
        ("id\tSentence\n1\ta, b\n", ["id", "Sentence"], 1),
        ("评论,类别\n很好,正面\n", ["评论", "类别"], 1),
        ("text\na\n", ["text"], 1),
        ("sentence1\tsentence2\na\tb\n", ["sentence1", "sentence2"], 1),
        ("Great film, really\nBad, too\n", ["text"], 2),
        ("Question, please?\nnone\n", ["text"], 2),
        ("\ufefftext,label\na,b\n", ["text", "label"], 1),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_standard_input(given, columns, rows, binary):
    stream = io.TextIOWrapper(io.BytesIO(given.encode())) if binary else io.StringIO(given)
    table = read_table("-", stdin=stream)
    assert list(table.columns) == columns and len(table) == rows


def test_standard_input_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a text\n"))
    assert read_table("-")["text"].tolist() == ["a text"]


def test_standard_input_with_a_separator():
    assert list(read_table("-", separator=";", stdin=io.StringIO("a;b\n1;2\n")).columns) == ["a", "b"]


def test_labels_written_as_lists_in_a_csv_file_are_several_labels(tmp_path):
    from foretune.data.infer import infer_task
    from foretune.data.multilabel import label_lists

    table = pd.DataFrame({"text": [f"text {i} of ten" for i in range(10)], "labels": [["a", "b"], ["b"]] * 5})
    table.assign(labels=table["labels"].map(json.dumps)).to_csv(tmp_path / "json.csv", index=False)
    table.to_csv(tmp_path / "python.csv", index=False)
    for name in ("json.csv", "python.csv"):
        read = read_table(tmp_path / name)
        found = infer_task(read)
        assert found.task == "multi-label"
        assert label_lists(read, found.columns) == table["labels"].tolist()


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        ("utterance,kind\nhello,greeting\n", ["utterance", "kind"]),
        ("user utterance\thello there\nhi\tyou\n", ["user utterance", "hello there"]),
        ("utterance\nhello\n", ["utterance"]),
        ("kind of you\nhello\n", ["text"]),
    ],
)
def test_known_columns_tell_a_header(given, columns):
    table = read_table("-", stdin=io.StringIO(given), known=["Utterance", "user utterance", "hello there"])
    assert list(table.columns) == columns


def test_the_usual_separator_is_for_headers_that_hold_it(tmp_path):
    for name, text in (("a.csv", "text;label\nx, y;1\n"), ("b.csv", "text,label\nx;y,1\n")):
        (tmp_path / name).write_text(text)
    assert read_table(tmp_path / "a.csv", usual=";").to_dict("list") == {"text": ["x, y"], "label": ["1"]}
    for options in ({}, {"separator": ","}):
        assert read_table(tmp_path / "b.csv", usual=";", **options)["text"].tolist() == ["x;y"]
    assert read_table("-", stdin=io.StringIO('{"text": "a; b"}\n'), usual=";")["text"].tolist() == ["a; b"]


def test_standard_input_errors():
    assert "Standard input is empty" in message("-", stdin=io.StringIO("\n"))
    latin = io.TextIOWrapper(io.BytesIO("a\ncafé\n".encode("cp1252")))
    found = message("-", stdin=latin)
    assert "standard input is not UTF-8: line 2" in found and "pipe it through `iconv -f CP1252" in found


def test_dataframe_is_copied_and_reindexed():
    source = frame().set_index(pd.Index([7, 8, 9]))
    table = read_table(source)
    table["new"] = 1
    assert table.index.tolist() == [0, 1, 2]
    assert list(source.columns) == ["text", "label"] and source.index.tolist() == [7, 8, 9]


def test_dataframe_columns_become_strings_and_must_differ():
    assert list(read_table(pd.DataFrame({0: ["a"], 1: ["b"]})).columns) == ["0", "1"]
    assert "'a' (columns 1, 2)" in message(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_dataframe_without_rows():
    assert "0 rows and 2 columns" in message(frame().iloc[:0])


def test_lists_and_dicts():
    records = frame().to_dict("records")
    assert read_table(records).equals(read_table(frame().to_dict("list")))


def test_faulty_lists_and_dicts():
    assert "item 2" in message([{"text": "a"}, "b"])
    assert "'text': 2" in message({"text": ["a", "b"], "label": ["c"]})
    assert "['text']" in message({"text": "abc", "label": ["c"]})
    assert "int is no table" in message(3)


def test_dataset_class_numbers_become_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    table = read_table(data)
    assert table["label"].tolist()[:2] == ["pos", "neg"] and table["label"].isna().tolist()[2]
    both = datasets.DatasetDict({"train": data, "test": data.select([0])})
    assert len(read_table(both, split="test")) == 1
    assert "no split 'dev'" in message(both, split="dev") and "train, test" in message(both, split="dev")
    assert "not streaming" in message(data.to_iterable_dataset())


def fake_hub(monkeypatch, answer, version="5.0.0"):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    fake = types.SimpleNamespace(__version__=version, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return calls


class Answer:
    features = None

    def __len__(self):
        return 1

    def to_pandas(self):
        return pd.DataFrame({"text": ["a"]})


def test_hub_id_with_configuration_and_split(monkeypatch):
    calls = fake_hub(monkeypatch, Answer())
    assert read_table("nyu-mll/glue:sst2", split="validation")["text"].tolist() == ["a"]
    assert calls == [(("nyu-mll/glue", "sst2"), {"split": "validation"})]


def test_no_remote_code_with_old_versions(monkeypatch):
    calls = fake_hub(monkeypatch, Answer(), version="3.6.0")
    read_table("owner/name")
    assert calls == [(("owner/name", None), {"split": "train", "trust_remote_code": False})]


def test_hub_failure_is_explained(monkeypatch):
    fake_hub(monkeypatch, ConnectionError("Couldn't reach it.\nlong trace"))
    found = message("owner/name")
    assert "Couldn't reach it." in found and "long trace" not in found and "connection" in found


def test_offline_never_asks_the_hub(monkeypatch):
    calls = fake_hub(monkeypatch, Answer())
    assert "offline" in message("owner/name", offline=True)
    assert not calls


@pytest.mark.parametrize(
    "name", ["owner/train.csv", "./owner/name", "a/b/c", "imdb", "owner/a.xlsx", "owner/a.gz"]
)
def test_what_looks_like_a_file_is_no_hub_id(monkeypatch, tmp_path, name):
    calls = fake_hub(monkeypatch, Answer())
    monkeypatch.chdir(tmp_path)
    assert "No such file" in message(name)
    assert not calls


def test_a_path_or_a_local_folder_is_no_hub_id(monkeypatch, tmp_path):
    calls = fake_hub(monkeypatch, Answer())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("text\na\n")
    assert "'train.csv'" in message("data/train")
    assert "No such file" in message(Path("owner/name"))
    assert not calls


def test_corrupt_parquet(tmp_path):
    write(tmp_path / "a.parquet", "parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-30])
    assert "not a readable parquet" in message(tmp_path / "a.parquet")


def test_wrong_separator_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError):
        read_table(tmp_path / "a.csv", separator="::")


@pytest.mark.parametrize(("name", "rows"), [("sst2/dev.csv", 872), ("imdb/unlabelled.txt.gz", 8000)])
def test_real_files(name, rows):
    if not SHARED.is_dir():
        pytest.skip("the shared data sets are not on this machine")
    assert len(read_table(SHARED / name)) == rows
