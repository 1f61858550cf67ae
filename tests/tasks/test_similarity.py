"""Similarity: pairs brought together by in-batch negatives, scored by ranking; one vector per text."""

import json
import random

import numpy as np
import pytest
import torch

import foretune
from foretune.backbones.embeddings import joined
from foretune.data.store import CutReport, build
from foretune.errors import ConfigError, DataError
from foretune.tasks.base import Examples
from foretune.tasks.similarity import LowestRanks, Rankings, Similarity, _numbers, ranking_scores

from .conftest import WORDS

MEANS = dict(
    zip(WORDS[:12], WORDS[12:24], strict=True)
)  # a query's words have another word each in its document


def searches(number, seed=0):
    draw, rows, seen = random.Random(seed), [], set()
    while len(rows) < number:
        words = tuple(draw.sample(list(MEANS), 3))
        if words not in seen:
            seen.add(words)
            answer = [MEANS[word] for word in words]
            draw.shuffle(answer)
            rows.append({"query": " ".join(words), "document": " ".join(answer)})
    return rows


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    return foretune.fit(
        searches(300), output=tmp_path_factory.mktemp("search") / "run", backbone=tiny, device="cpu", precision="fp32",
        offline=True, epochs=8.0, lr=3e-3, batch_tokens=512, seed=1, task="similarity",
    )  # fmt: skip


def test_queries_find_their_documents(model):
    scores = model.record["metrics"]["test"]
    assert set(scores) == {"recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10"}
    untuned = model.record["baselines"]["untuned"]
    assert scores["mrr"]["value"] > untuned["mrr"]["value"] + 0.2
    assert "tfidf" in model.record["baselines"]
    assert "mean reciprocal rank" in (model.path / "report.html").read_text()
    worst = {"query": "<b>", "wanted": "x", "rank": 3, "found": "y"}
    assert "&lt;b&gt;" in model.task.sections({}, [worst])[0]


def test_vectors_are_the_scores_and_survive_saving(model):
    pair = ("good bad great", "long short very")
    vectors = model.embed(list(pair))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert model.predict(pair) == pytest.approx([float(vectors[0] @ vectors[1])], abs=1e-5)
    again = foretune.load(model.path, device="cpu")
    assert np.allclose(again.embed(list(pair)), vectors, atol=1e-6)
    with pytest.raises(DataError):
        model.embed([3])


def test_plain_transformers_gives_the_same_vectors(model):
    from transformers import AutoModel, AutoTokenizer

    plain, tokens = AutoModel.from_pretrained(model.path), AutoTokenizer.from_pretrained(model.path)
    with torch.no_grad():
        hidden = plain(**tokens("good bad great", return_tensors="pt")).last_hidden_state.mean(dim=1)
    vector = torch.nn.functional.normalize(hidden, dim=-1)[0].numpy()
    assert np.allclose(vector, model.embed("good bad great")[0], atol=1e-5)


def test_the_loss_is_that_of_in_batch_negatives_without_copies():
    torch.manual_seed(0)
    outputs = torch.nn.functional.normalize(torch.randn(3, 2, 5), dim=-1)
    cosines = 20 * outputs[:, 0] @ outputs[:, 1].T
    task = Similarity(None)
    expected = -cosines.log_softmax(dim=1).diagonal().sum()
    assert torch.isclose(task.loss(outputs, torch.tensor([[0, 0], [1, 1], [2, 2]])), expected)
    cosines[0, 2] = cosines[2, 0] = float("-inf")  # equal documents are no negatives, nor those of one query
    expected = -cosines.log_softmax(dim=1).diagonal().sum()
    assert torch.isclose(task.loss(outputs, torch.tensor([[0, 7], [1, 1], [2, 7]])), expected)
    assert torch.isclose(task.loss(outputs, torch.tensor([[5, 0], [1, 1], [5, 2]])), expected)


def test_ranking_by_hand():
    queries = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    documents = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    numbers = np.array([[0, 0], [1, 0], [2, 1]])  # two copies of one document
    scores = ranking_scores(queries, documents, numbers).point()
    assert scores["recall_at_1"] == pytest.approx(1 / 3) and scores["mrr"] == pytest.approx(
        (1 + 0.5 + 0.5) / 3
    )
    kept = LowestRanks(5, Examples([("q0", "d"), ("q1", "d"), ("q2", "e")], None, np.arange(1, 4)))
    for row in (2, 0, 1):
        pair = np.stack([queries[row], documents[row]])[None]
        kept.update(np.array([row]), pair, numbers[[row]])
    found = kept.top()
    assert [(each["query"], each["rank"], each["found"]) for each in found] == [
        ("q1", 2, "e"),
        ("q2", 2, "d"),
    ]
    whole = Rankings()
    for row in (1, 2, 0):
        whole.update(np.stack([queries[row], documents[row]])[None], numbers[[row]], np.array([row]))
    assert whole.point() == scores


def test_a_query_with_two_documents_is_one_query_that_wants_both():
    """Both stand before the third document: nothing is wrong, and nothing is shown as wrong."""
    queries = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    documents = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    numbers = _numbers([("a", "x"), ("a ", "y"), ("b", "z")])
    scores = ranking_scores(queries, documents, numbers)
    assert scores.n == 2 and scores.point() == {
        "recall_at_1": 0.75, "recall_at_5": 1.0, "recall_at_10": 1.0, "mrr": 1.0, "ndcg_at_10": 1.0
    }  # fmt: skip
    kept = LowestRanks(5, Examples([("a", "x"), ("a ", "y"), ("b", "z")], None, np.arange(1, 4)))
    kept.update(np.arange(3), np.stack([queries, documents], axis=1), numbers)
    assert kept.top() == []


def test_the_untuned_baseline_ranks_among_the_same_documents(tiny, tmp_path, monkeypatch):
    from foretune import untuned

    monkeypatch.setattr(untuned, "MOST", 3)
    options = {"backbone": tiny, "device": "cpu", "precision": "fp32", "offline": True, "task": "similarity"}
    model = foretune.fit(searches(60), output=tmp_path / "run", epochs=1.0, lr=1e-9, seed=1, **options)
    record = json.loads((model.path / "foretune.json").read_text())
    assert record["data"]["sizes"]["test"] > 3 and "note" not in record["baselines"]["untuned"]
    found = [each["mrr"]["value"] for each in (record["baselines"]["untuned"], record["metrics"]["test"])]
    assert found[0] == pytest.approx(found[1], abs=1e-3)  # at this rate nothing was learnt


def test_other_queries_are_other_data():
    task = Similarity(None)
    one, two = (Examples([(query, "x")], _numbers([(query, "x")]), np.arange(1, 2)) for query in "ab")
    assert task.identities(one) != task.identities(two) and task.groups(one) == task.groups(two)


def test_equal_documents_share_a_number_and_a_side(model):
    assert _numbers([("a", "x"), ("b", " x "), ("c", "y")]).tolist() == [[0, 0], [1, 0], [2, 1]]
    one, other = model.task.groups(Examples([("a", "x"), ("b", " x")], None, np.arange(1, 3)))
    assert one == other


def test_what_shares_a_query_or_a_document_stays_on_one_side(model):
    pairs = [("a", "x"), ("a", "y"), ("b", "y "), ("c", "z"), ("d", "u"), ("e", "v"), ("f", "w")]
    groups = model.task.groups(Examples(pairs, None, np.arange(1, 8)))
    assert groups[0] == groups[1] == groups[2] and len(set(groups)) == 5
    # Where nearly all hang together, only the queries of a document do: else nothing were left for dev.
    chain = [(str(i + j), str(i)) for i in range(10) for j in (0, 1)]
    groups = model.task.groups(Examples(chain, None, np.arange(1, 21)))
    assert len(set(groups)) == 10 and all(a == b for a, b in zip(groups[::2], groups[1::2], strict=True))


def test_stores_of_both_texts_are_joined():
    one = build([np.array([1, 2]), np.array([3])], CutReport(2, 3))
    two = build([np.array([4]), np.array([5, 6])], CutReport(2, 3))
    both = joined(one, two)
    assert both[0].tolist() == [1, 2, 4] and both.extra("part", 1).tolist() == [0, 1, 1]
    assert both.lengths.tolist() == [3, 3] and both.cuts.tokens == 6


def test_what_does_not_fit_is_said(tiny, tmp_path):
    with pytest.raises(ConfigError, match="no head"):
        foretune.fit(
            searches(40), output=tmp_path / "a", backbone=tiny, task="similarity", strategy="linear-probe"
        )
    rows = searches(40)
    rows[2]["document"] = " "
    with pytest.raises(DataError, match=r"document.*row 3"):
        foretune.fit(rows, output=tmp_path / "b", backbone=tiny, task="similarity")
    scored = [{**row, "score": i / 40} for i, row in enumerate(searches(40))]
    model = foretune.fit(
        scored, output=tmp_path / "c", backbone=tiny, task="similarity", epochs=1.0, device="cpu"
    )
    assert any(
        "not used" in text for text in json.loads((model.path / "foretune.json").read_text())["warnings"]
    )


def test_class_weights_are_refused_where_they_would_do_nothing(tiny, tmp_path):
    with pytest.raises(ConfigError, match="not for similarity"):
        foretune.fit(
            searches(40), output=tmp_path / "a", backbone=tiny, task="similarity", class_weights="auto"
        )
    assert not (tmp_path / "a").exists()


def test_nothing_stays_behind_on_the_cpu(quick, elsewhere, tmp_path):
    given = quick | {"device": "auto", "epochs": 1.0, "task": "similarity"}
    model = foretune.fit(searches(60), output=tmp_path / "run", **given)
    assert next(model.backbone.model.parameters()).device == elsewhere and model.embed(["good"]).shape[0] == 1
