"""Text pairs: read, encoded as the tokenizer itself would, learnt, saved, predicted, refused where broken."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

import foretune
from foretune.backbones.tokenize import cut_longest, tokenize
from foretune.cli import app
from foretune.errors import DataError

from .conftest import tokenizer


def pairs(number, seed=0):
    """Pairs that share a first word, or do not."""
    draw, words = random.Random(seed), ["good", "bad", "great", "awful", "film", "plot", "room", "staff"]
    rows = []
    for _ in range(number):
        a, b = draw.sample(words, 2)
        same = draw.random() < 0.5
        rest = [" ".join(draw.choices(["the", "a", "is", "was"], k=draw.randint(1, 5))) for _ in range(2)]
        rows.append(
            {
                "text_a": f"{a} {rest[0]}",
                "text_b": f"{a if same else b} {rest[1]}",
                "label": "yes" if same else "no",
            }
        )
    return rows


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair") / "run"
    return foretune.fit(
        pairs(120), output=folder, backbone=tiny, device="cpu", precision="fp32", offline=True, epochs=2.0,
        batch_tokens=512, seed=1,
    )  # fmt: skip


@pytest.mark.parametrize("length", [12, 20, 64])
def test_tokens_are_the_tokenizers_own(sentences, length):
    """The longer text is cut first, as transformers' longest_first does; token types tell the two apart."""
    own, texts = tokenizer(), sentences(60)
    given = list(zip(texts[:30], texts[30:], strict=True))
    store = tokenize(own, given, max_length=length)
    for row, (first, second) in enumerate(given):
        wanted = own(first, second, truncation="longest_first", max_length=length)
        assert store[row].tolist() == wanted["input_ids"]
        types = store.extras["token_type_ids"][store.offsets[row] : store.offsets[row + 1]]
        assert types.tolist() == wanted["token_type_ids"]
    assert store.cuts.cut_examples == sum(len(own(a, b)["input_ids"]) > length for a, b in given)


@pytest.mark.parametrize(("first", "second", "room", "kept"), [
    (5, 5, 10, (5, 5)), (9, 2, 6, (4, 2)), (2, 9, 6, (2, 4)), (9, 9, 6, (3, 3)), (9, 9, 7, (3, 4)), (1, 9, 3, (1, 2)),
])  # fmt: skip
def test_the_longer_is_cut(first, second, room, kept):
    a, b = cut_longest(np.arange(first), np.arange(second), room)
    assert (len(a), len(b)) == kept and (a == np.arange(len(a))).all()


def test_truncation_says_which_part_of_both_stays():
    a, b = cut_longest(np.arange(9), np.arange(2), 6, "tail")
    assert (a.tolist(), b.tolist()) == ([5, 6, 7, 8], [0, 1])
    a, b = cut_longest(np.arange(9), np.arange(9), 8, "head+tail")
    assert a.tolist() == b.tolist() == [0, 6, 7, 8]
    pair = [("good " * 9, "bad film")]
    kept = {side: tokenize(tokenizer(), pair, max_length=9, truncation=side)[0] for side in ("head", "tail")}
    assert kept["head"].tolist() == kept["tail"].tolist()  # all the same words: only the place differs
    ends = [("good " * 8 + "plot", "bad film")]
    kept = {side: tokenize(tokenizer(), ends, max_length=9, truncation=side)[0] for side in ("head", "tail")}
    plot = tokenizer().convert_tokens_to_ids("plot")
    assert plot in kept["tail"] and plot not in kept["head"]


def test_the_task_is_inferred_and_everything_is_measured(model):
    record = json.loads((model.path / "foretune.json").read_text())
    assert record["task"]["name"] == "text-pair" and record["task"]["columns"]["second"] == "text_b"
    assert {"majority", "tfidf_pair_logreg"} == set(record["baselines"])
    # Words shared by both texts give the answer away, which the baseline's overlap features see.
    assert record["baselines"]["tfidf_pair_logreg"]["accuracy"]["value"] > 0.8
    assert (
        0
        <= record["metrics"]["test"]["accuracy"]["low"]
        <= record["metrics"]["test"]["accuracy"]["high"]
        <= 1
    )
    assert "both texts" in (model.path / "report.html").read_text() or model.record["metrics"]


def test_reloaded_it_predicts_the_same(model):
    again = foretune.load(model.path, device="cpu")
    given = [("good film", "good plot"), ("bad room", "good room")]
    assert np.allclose(again.predict_proba(given), model.predict_proba(given), atol=1e-6)
    assert again.predict(given[0]) == model.predict([given[0]])  # a single pair


def test_plain_transformers_gives_the_same(model):
    from transformers import pipeline

    found = pipeline("text-classification", str(model.path))({"text": "good film", "text_pair": "good plot"})
    probabilities = model.predict_proba([("good film", "good plot")])[0]
    assert found["score"] == pytest.approx(float(probabilities.max()), abs=1e-4)
    assert found["label"] == model.labels[int(probabilities.argmax())]


def test_the_command_line_reads_both_columns(model, tmp_path):
    table = tmp_path / "new.csv"
    table.write_text("a,b\ngood film,good plot\nbad room,good room\n")
    named = ["--text", "a", "--second", "b", "--quiet"]
    done = CliRunner().invoke(app, ["predict", str(model.path), str(table), *named])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["label"] for line in lines] == model.predict(
        [("good film", "good plot"), ("bad room", "good room")]
    )
    done = CliRunner().invoke(app, ["predict", str(model.path), str(table), "--quiet"])
    assert done.exit_code == 1 and "text_a" in done.output


def test_columns_whose_names_are_swapped_are_found(model):
    rows = pairs(30, seed=9)
    swapped = [{"text_b": row["text_a"], "text_a": row["text_b"], "label": row["label"]} for row in rows]
    found = model.evaluate(swapped, text="text_b", second="text_a")
    assert found["confusion"] == model.evaluate(rows)["confusion"]


@pytest.mark.parametrize(("broken", "said"), [
    ({"text_b": ""}, "text_b"), ({"text_a": None}, "text_a"), ({"label": None}, "label"),
])  # fmt: skip
def test_broken_rows_are_named(tiny, tmp_path, broken, said):
    rows = pairs(20)
    rows[4] |= broken
    with pytest.raises(DataError, match=said) as found:
        foretune.fit(rows, output=tmp_path / "run", backbone=tiny, task="text-pair")
    assert "row 5" in str(found.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given", ["one text", [("a", "b", "c")], ["ab", "cd"], [{"text_a": "a", "text_b": "b"}], [None], [5]]
)
def test_what_is_no_pair_is_refused(model, given):
    if given == ["ab", "cd"]:  # two strings are one pair
        assert len(model.predict(given)) == 1
        return
    with pytest.raises(DataError, match="pair"):
        model.predict(given)
