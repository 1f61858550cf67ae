"""Plans for pictures: a score from the frozen features of every stage, through the same quality model as texts."""

import pytest

import foretune
from foretune.forecast import ledger

from .conftest import write_picture

pytest.importorskip("timm")
COLOURS = {"blue": (90, 90, 150), "red": (150, 90, 90)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of sixty noisy pictures, a folder per class."""
    base = tmp_path_factory.mktemp("photos")
    for label, colour in COLOURS.items():
        for n in range(30):
            write_picture(base / label / f"{n}.png", colour, seed=n, noise=90)
    return base


def test_a_score_is_forecast_and_the_fit_is_held_to_it(photos, network, tmp_path):
    options = {"device": "cpu", "offline": True, "epochs": 1.0}
    plan = foretune.plan(
        photos, backbones=[str(network("test_resnet"))], strategies="linear-probe", **options
    )
    assert plan.task == "image-classification" and len(plan.candidates) == 1
    for choice in plan.candidates:
        assert 0 <= choice.low < choice.value < choice.high <= 1
        assert any("frozen features" in text for text in choice.why)
        assert any("has been measured yet" in text for text in choice.why)  # of this backbone
    assert plan.labels["x2"]["low"] <= plan.labels["x2"]["value"] <= plan.labels["x2"]["high"]
    model = foretune.fit(photos, plan=plan, output=tmp_path / "run", **options)
    held = model.record["forecast"]
    assert held["score"]["forecast"] == plan.best.value and held["inside"] in (True, False)


def test_the_shipped_ledger_holds_pictures_too():
    found = [outcome for outcome in ledger.shipped() if outcome.task == "image-classification"]
    assert len({outcome.data for outcome in found}) >= 3 and {o.strategy for o in found} >= {
        "linear-probe",
        "full",
    }
    assert all("probe" in outcome.predictors for outcome in found)
