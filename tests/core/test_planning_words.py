"""What a plan says of more labels: what the probe gains where labels are learnt from, nothing where they are not."""

from types import SimpleNamespace

import numpy as np
import pytest

from foretune.cli_plan import _target as in_words
from foretune.forecast.curve import fit_curve
from foretune.forecast.plan import Choice
from foretune.planning_words import labels

LOOK = SimpleNamespace(
    curve=fit_curve(np.array([25, 50, 100]), np.array([0.55, 0.65, 0.72]), np.full(3, 0.01)),
    predictors={"curve_x2": 0.05, "curve_x2_width": 0.02, "curve_x5": 0.09, "curve_x5_width": 0.04},
)


def choice(strategy):
    return Choice(
        backbone="a", strategy=strategy, metric="accuracy", value=0.7, low=0.6, high=0.8, seconds=1.0,
        peak_memory_bytes=1, disk_bytes=1,
    )  # fmt: skip


def test_more_labels_raise_the_score_of_what_learns_from_them():
    found = labels(choice("full"), LOOK, 100, 0.75)
    assert found["x2"]["value"] == pytest.approx(0.75) and found["x5"]["value"] == pytest.approx(0.79)
    assert found["x5"]["low"] < found["x2"]["low"] + 0.09 and found["target"]["value"] > 100


@pytest.mark.parametrize(
    ("target", "needs", "said"),
    [
        (0.5, (0, 0, 0), "50.0 needs about 0 labels (0 – 0)"),
        (0.65, (0, 0, None), "65.0 needs about 0 labels (0 – never)"),
        (0.75, (None, 0, None), "75.0 is out of reach with this kind of model and data (with luck from 0 labels)"),
        (0.9, (None, None, None), "90.0 is out of reach with this kind of model and data"),
    ],
)  # fmt: skip
def test_what_needs_no_labels_gains_nothing_by_more(target, needs, said):
    found = labels(choice("zero-shot"), LOOK, 100, target)
    assert found.keys() == {"n", "x2", "x5", "target"} and found["n"] == 100
    for score in (found["x2"], found["x5"]):
        assert score == {"value": 0.7, "low": 0.6, "high": 0.8}
    assert found["target"] == {"score": target, **dict(zip(("value", "low", "high"), needs, strict=True))}
    assert in_words(found["target"]) == said


def test_without_a_target_or_a_look_less_is_said():
    assert labels(choice("zero-shot"), LOOK, 100, None).keys() == {"n", "x2", "x5"}
    assert labels(choice("zero-shot"), None, 100, 0.9) == {"n": 100}
