"""Zero-shot: label names become the classifier; nothing trains; with or without labelled rows."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import foretune
from foretune.cli import app
from foretune.errors import ConfigError, DataError

TEXTS = ["good great love kind", "bad awful hate rude", "clean room", "slow plot of the film"] * 6
LABELS = ["good", "awful_food", "clean", "plot"] * 6


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    rows = [
        {**row, "text": f"{row['text']} {['the', 'a', 'is', 'was'][i % 4]} {i}"} for i, row in enumerate(rows)
    ]
    return foretune.fit(
        rows, output=tmp_path_factory.mktemp("zero") / "run", strategy="zero-shot", backbone=tiny, device="cpu",
        precision="fp32", offline=True, test_fraction=0.3,
    )  # fmt: skip


def test_the_classifier_is_the_names_embeddings(model):
    """A text that is a label's own name is nearest to that label: cosine 1."""
    assert model.labels == ("awful_food", "clean", "good", "plot")
    assert model.predict(["good", "awful food", "clean", "plot"]) == ["good", "awful_food", "clean", "plot"]
    logits = np.log(model.predict_proba(["good"])[0])
    cosines = (logits - logits.max()) / 20.0 + 1.0
    assert cosines.max() == pytest.approx(1.0) and cosines.min() >= -1.0


def test_nothing_trains_and_everything_is_measured(model):
    assert model.record["train"]["steps"] == 0 and model.record["train"]["epochs"] == 0.0
    assert {"test", "dev"} <= set(model.record["metrics"]) and model.record["baselines"]
    assert model.recipe.epochs is None and (model.path / "report.html").exists()


def test_plain_transformers_runs_it(model):
    from transformers import pipeline

    assert pipeline("text-classification", str(model.path))("clean")[0]["label"] == "clean"
    assert foretune.load(model.path, device="cpu").predict(["clean"]) == ["clean"]


def test_label_names_alone_will_do(tiny, tmp_path):
    table = tmp_path / "texts.csv"
    table.write_text("text\n" + "\n".join(f"{text} {i}" for i, text in enumerate(TEXTS)) + "\n")
    done = CliRunner().invoke(app, [
        "fit", str(table), "--strategy", "zero-shot", "--option", "labels=good, awful food,clean", "--backbone", tiny,
        "--output", str(tmp_path / "run"), "--device", "cpu", "--json", "--offline",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["metrics"] == {} and found["strategy"] == "zero-shot"
    assert foretune.load(tmp_path / "run", device="cpu").labels == ("good", "awful food", "clean")


def test_template_and_descriptions_are_what_is_compared(tiny, tmp_path, model):
    rows = [
        {"text": f"{text} {i}", "label": label}
        for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    options = {"template": "the {} here", "descriptions": {"plot": "slow film"}}
    other = foretune.fit(
        rows,
        output=tmp_path / "run",
        strategy="zero-shot",
        backbone=tiny,
        device="cpu",
        offline=True,
        options=options,
    )
    assert other.predict(["the slow film here", "the clean here"]) == ["plot", "clean"]


@pytest.mark.parametrize(("options", "said"), [
    ({"template": "no place"}, "template"), ({"descriptions": {"plott": "x"}}, "plott.*plot"),
    ({"descriptions": 3}, "table"),
])  # fmt: skip
def test_wrong_options_are_named(tiny, tmp_path, options, said):
    rows = [
        {"text": f"{text} {i}", "label": label}
        for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    with pytest.raises(ConfigError, match=said):
        foretune.fit(rows, output=tmp_path / "run", strategy="zero-shot", backbone=tiny, options=options)


def test_other_strategies_need_targets(tiny, tmp_path):
    rows = [{"text": f"{text} {i}"} for i, text in enumerate(TEXTS)]
    with pytest.raises(ConfigError, match=r"no target.*zero-shot"):
        foretune.fit(rows, output=tmp_path / "run", backbone=tiny, options={"labels": "good,bad"})
    with pytest.raises(DataError, match="--option labels"):
        foretune.fit(
            rows, output=tmp_path / "run", backbone=tiny, strategy="zero-shot", options={"labels": "one"}
        )


def test_a_model_of_names_alone_is_scored_once_the_labels_are_named(tiny, tmp_path):
    texts = [{"text": f"{text} {i}"} for i, text in enumerate(TEXTS)]
    model = foretune.fit(
        texts, output=tmp_path / "run", strategy="zero-shot", backbone=tiny, device="cpu", offline=True,
        task="text-classification", options={"labels": ["good", "clean"]},
    )  # fmt: skip
    labelled = [{"text": "good", "kind": "good"}, {"text": "clean", "kind": "clean"}]
    with pytest.raises(ConfigError, match="Name it with --target"):
        model.evaluate(labelled)
    assert model.evaluate(labelled, target="kind")["accuracy"]["value"] == 1.0
    assert model.predict(["clean"]) == ["clean"]


def test_labels_that_are_named_are_never_silently_those_of_another_column(tiny, tmp_path):
    rows = [{"text": f"{text} {i}", "source": ["web", "app"][i % 2]} for i, text in enumerate(TEXTS)]
    options = {
        "strategy": "zero-shot",
        "backbone": tiny,
        "device": "cpu",
        "offline": True,
        "test_fraction": 0.3,
    }
    with pytest.raises(DataError, match=r"'source' was taken for the labels.*does not name"):
        foretune.fit(rows, output=tmp_path / "a", options={"labels": ["good", "awful"]}, **options)
    assert not (tmp_path / "a").exists()
    model = foretune.fit(rows, output=tmp_path / "b", options={"labels": ["web", "shop", "app"]}, **options)
    assert (
        model.labels == ("web", "shop", "app")
        and 0 <= model.record["metrics"]["test"]["accuracy"]["value"] <= 1
    )


def test_a_template_may_hold_other_braces(tiny, tmp_path):
    model = foretune.fit(
        [{"text": text} for text in TEXTS[:6]], output=tmp_path / "run", strategy="zero-shot", backbone=tiny,
        device="cpu", offline=True, options={"labels": ["good", "clean"], "template": "{x} {}"},
    )  # fmt: skip
    assert model.labels == ("good", "clean")
