"""When training stops early: after evaluations without gain, but not where only a head learns from cached features."""

import pytest

EPOCHS = 10.0  # with at most 10 evaluations of a probe, one each


@pytest.fixture
def stuck(monkeypatch):
    """Let the score on dev never change."""
    from foretune.evaluation.metrics import ClassificationScores

    point = ClassificationScores.point
    monkeypatch.setattr(ClassificationScores, "point", lambda self: point(self) | {"accuracy": 0.5})


@pytest.mark.parametrize(
    ("strategy", "changes", "evaluations"),
    [
        ("full", {}, 4),
        ("full", {"patience": 1}, 2),
        ("full", {"patience": 0}, 10),
        ("linear-probe", {}, 10),
        ("linear-probe", {"cache": "off"}, 10),
        ("linear-probe", {"patience": 2}, 3),
        ("top-layers", {"options": {"layers": 1}}, 4),
    ],
)
def test_after_how_many_evaluations(fit, events, stuck, tmp_path, strategy, changes, evaluations):
    model = fit(
        tmp_path / "run", strategy=strategy, epochs=EPOCHS, patience=changes.pop("patience", ...), **changes
    )
    assert len(events(tmp_path / "run", "evaluation")) == evaluations
    assert model.record["train"]["stopped_early"] == (evaluations < 10)
