from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from foretune.errors import DataError
from foretune.forecast.features import (
    Names,
    Scaling,
    anchor_variance,
    covariates,
    logit,
    sampling_variance,
)
from foretune.forecast.ledger import Candidate, Outcome
from foretune.forecast.quality import QualityModel

BACKBONES = ("small", "medium", "large", "other")
GAINS = {"linear-probe": 0.0, "full": 0.6, "lora": 0.4}  # over the probe, in logits
BETTER = {"large": 0.3, "small": -0.2}  # beyond what their probes say


def share(logits: float) -> float:
    return 1 / (1 + math.exp(-logits))


def world(
    seed: int, sets: int = 9, *, n: int = 400, n_test: int = 800, shift: float = 0.0, prefix: str = "set",
    strategies: tuple[str, ...] = tuple(GAINS), pilots: bool = False, surprise: float = 0.15,
) -> list[Outcome]:  # fmt: skip
    """Outcomes whose truth is known: probe + gain of the strategy + offsets of backbone and set, then noise."""
    rng, made = np.random.default_rng(seed), []
    for number in range(sets):
        level, of_set = (
            rng.normal(1.0, 0.8),
            dict(zip(strategies, rng.normal(0, surprise, len(strategies)), strict=True)),
        )
        for backbone in BACKBONES:
            features = level + rng.normal(0, 0.4)
            probe = rng.binomial(n, share(features)) / n
            for strategy in strategies:
                truth = features + GAINS[strategy] + of_set[strategy] + BETTER.get(backbone, 0.0) + shift
                truth += rng.normal(0, 0.05)
                predictors = {
                    "probe": probe,
                    "knn": share(features - 0.2 + rng.normal(0, 0.2)),
                    "majority": 0.5,
                }
                if pilots and strategy == "full":
                    predictors["pilot"] = rng.binomial(n, share(truth - 0.3)) / n
                made.append(Outcome(
                    data=f"{prefix}{seed}.{number}", task="text-classification", n=n, classes=2, tokens=20.0,
                    backbone=backbone, backbone_fingerprint=f"print-{backbone}", strategy=strategy,
                    metric="accuracy", n_test=n_test,
                    predictors=predictors, score=rng.binomial(n_test, share(truth)) / n_test, seconds=60.0,
                    peak_memory_bytes=10**9,
                ))  # fmt: skip
    return made


def left_out(outcomes: list[Outcome]):
    """Yield (model that has not seen the set, the set's outcomes)."""
    for name in sorted({outcome.data for outcome in outcomes}):
        others = [outcome for outcome in outcomes if outcome.data != name]
        yield QualityModel.fit(others), [outcome for outcome in outcomes if outcome.data == name]


@pytest.fixture(scope="module")
def known() -> list[Outcome]:
    return world(0)


@pytest.fixture(scope="module")
def model(known) -> QualityModel:
    return QualityModel.fit(known)


def candidate(**changes) -> Candidate:
    made = {
        "data": "new", "task": "text-classification", "n": 400, "classes": 2, "tokens": 20.0, "backbone": "medium",
        "backbone_fingerprint": "print-medium", "strategy": "full", "metric": "accuracy", "n_test": 800,
        "predictors": {"probe": 0.75, "probe_last": 0.72, "majority": 0.5},
    }  # fmt: skip
    return Candidate(**(made | changes))


def width(model: QualityModel, **changes) -> float:
    made = model.predict(candidate(**changes))
    return made.high - made.low


# --- does it hold what it says? -----------------------------------------------------------------------------


def test_intervals_hold_the_scores_of_data_never_seen_nine_times_in_ten() -> None:
    inside, errors, plain = [], [], []
    for seed in range(4):
        for model, held in left_out(world(seed)):
            made = model.predict_all(held)
            inside.append(np.mean([f.low <= o.score <= f.high for f, o in zip(made, held, strict=True)]))
            errors += [abs(f.value - o.score) for f, o in zip(made, held, strict=True)]
            plain += [abs(o.predictors["probe"] - o.score) for o in held]
    # Scores of one set go together, so the spread over the 36 sets is what the mean can be held to.
    error = np.std(inside, ddof=1) / len(inside) ** 0.5
    assert 0.9 - 2.5 * error <= np.mean(inside) <= 0.97, (np.mean(inside), error)
    assert np.mean(errors) < 0.6 * np.mean(plain)


def test_the_ranking_is_good_where_the_numbers_inform() -> None:
    taus, regrets, gaps = [], [], []
    for model, held in left_out(world(10)):
        values, scores = [f.value for f in model.predict_all(held)], np.array([o.score for o in held])
        taus.append(kendalltau(values, scores)[0])
        regrets.append(scores.max() - scores[int(np.argmax(values))])
        gaps.append(scores.max() - scores.mean())
    assert np.mean(taus) > 0.65 and np.mean(regrets) < 0.25 * np.mean(gaps)


def test_the_ranking_is_chance_where_they_do_not() -> None:
    rng, taus, inside = np.random.default_rng(5), [], []
    noise = [
        replace(
            o,
            score=rng.binomial(800, rng.uniform(0.5, 0.95)) / 800,
            predictors={"probe": rng.uniform(0.5, 0.95)},
        )
        for o in world(11, sets=10)
    ]
    for model, held in left_out(noise):
        made = model.predict_all(held)
        taus.append(kendalltau([f.value for f in made], [o.score for o in held])[0])
        inside += [f.low <= o.score <= f.high for f, o in zip(made, held, strict=True)]
    assert abs(np.mean(taus)) < 3 * np.std(taus, ddof=1) / len(taus) ** 0.5
    assert np.mean(inside) > 0.83  # wide, and still right


def test_planted_gains_and_offsets_are_learnt() -> None:
    model = QualityModel.fit(world(20, sets=20))
    gain = {s: logit(model.predict(candidate(strategy=s)).value, 1e9) for s in GAINS}
    assert gain["full"] - gain["linear-probe"] == pytest.approx(0.6, abs=0.15)
    assert gain["lora"] - gain["linear-probe"] == pytest.approx(0.4, abs=0.15)
    asked = [candidate(backbone=b, backbone_fingerprint=f"print-{b}") for b in ("large", "medium")]
    large, medium = (logit(made.value, 1e9) for made in model.predict_all(asked))
    assert large - medium == pytest.approx(0.3, abs=0.15)


# --- what makes it wide -------------------------------------------------------------------------------------


def test_what_was_never_measured_is_less_certain_and_said(model) -> None:
    usual = width(model)
    strange = candidate(backbone="mine", backbone_fingerprint="print-mine")
    made = model.predict(strange)
    assert made.high - made.low > 1.02 * usual
    assert any("No outcome of mine has been measured" in line for line in made.why)
    new = model.predict(candidate(strategy="prompting"))
    assert new.high - new.low > 1.1 * usual and any("No outcome of prompting" in line for line in new.why)


def test_few_held_out_examples_widen_the_interval(model) -> None:
    widths = [width(model, n_test=n) for n in (2000, 200, 50, 10)]
    assert widths == sorted(widths) and widths[2] > 1.5 * widths[0]
    assert any("50 held-out examples" in line for line in model.predict(candidate(n_test=50)).why)
    assert not any("held-out" in line for line in model.predict(candidate(n_test=2000)).why)
    some, few = ({"probe": 0.75, "unknown": share} for share in (0.6, 0.01))
    assert "60 % of the tokens are unknown to this backbone." in model.predict(candidate(predictors=some)).why
    assert not any("unknown" in line for line in model.predict(candidate(predictors=few)).why)


def test_more_scattered_outcomes_make_wider_intervals(model) -> None:
    assert width(QualityModel.fit(world(0, surprise=0.6))) > 1.5 * width(model)


@pytest.mark.parametrize("probe", [0.0, 0.02, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("n_test", [1, 100])
def test_every_forecast_is_a_share_within_its_interval(model, probe, n_test) -> None:
    made = model.predict(candidate(predictors={"probe": probe}, n_test=n_test))
    assert 0 <= made.low <= made.value <= made.high <= 1
    assert all(math.isfinite(number) for number in (made.value, made.low, made.high))


# --- the user's own outcomes --------------------------------------------------------------------------------


def test_the_users_own_outcomes_correct_the_next_forecast(known) -> None:
    own, next_ones = world(30, sets=8, shift=-0.8, prefix="own"), world(31, sets=4, shift=-0.8, prefix="next")
    before, after = QualityModel.fit(known), QualityModel.fit(known, own)

    def misses(model) -> tuple[float, float]:
        made = model.predict_all(next_ones)
        inside = [f.low <= o.score <= f.high for f, o in zip(made, next_ones, strict=True)]
        return float(np.mean(inside)), float(
            np.mean([f.value - o.score for f, o in zip(made, next_ones, strict=True)])
        )

    (covered, bias), (covered_after, bias_after) = misses(before), misses(after)
    assert bias > 0.08 and abs(bias_after) < 0.04
    assert covered < 0.7 < 0.8 < covered_after
    why = after.predict(next_ones[0]).why
    assert any(
        "Your own fits are counted in (96 outcomes), which moves the forecast" in line and "down" in line
        for line in why
    )


@pytest.mark.slow
def test_the_users_residuals_count_more(known) -> None:
    scattered = world(40, sets=4, surprise=1.2, prefix="own")
    assert width(QualityModel.fit(known, scattered)) > width(QualityModel.fit([*known, *scattered]))


@pytest.mark.slow
def test_a_fit_on_the_same_data_sharpens_the_next() -> None:
    gained = []
    for seed in range(50, 52):
        outcomes = world(seed, surprise=0.5)
        for model, held in list(left_out(outcomes))[:4]:
            others = [o for o in outcomes if o.data != held[0].data]
            first = [o for o in held if o.backbone == "medium"]
            rest = [o for o in held if o.backbone != "medium"]
            again = QualityModel.fit(others, first)
            error = [
                np.mean([abs(f.value - o.score) for f, o in zip(m.predict_all(rest), rest, strict=True)])
                for m in (model, again)
            ]
            gained.append(error[0] - error[1])
            assert any("What these data came to before" in line for line in again.predict(rest[0]).why)
    assert np.mean(gained) > 0.02


def test_only_the_latest_outcome_of_a_candidate_counts(known, model) -> None:
    wrong = [replace(outcome, score=0.01) for outcome in known[:40]]
    assert QualityModel.fit([*wrong, *known]).predict(candidate()) == model.predict(candidate())


# --- pilots -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pilot_makes_forecasts_better_and_informs_about_other_backbones() -> None:
    outcomes = world(60, sets=12, pilots=True, surprise=0.6)
    errors = {"none": [], "all": [], "one": []}
    for model, held in left_out(outcomes):
        for kind, kept in {"none": (), "all": BACKBONES, "one": ("medium",)}.items():
            shown = [
                o if o.backbone in kept
                else replace(o, predictors={k: v for k, v in o.predictors.items() if k != "pilot"})
                for o in held
            ]  # fmt: skip
            asked = [
                (f, o) for f, o in zip(model.predict_all(shown), held, strict=True) if o.strategy == "full"
            ]
            errors[kind] += [abs(f.value - o.score) for f, o in asked if o.backbone != "medium"]
    assert np.mean(errors["all"]) < 0.6 * np.mean(errors["none"])
    assert np.mean(errors["one"]) < 0.85 * np.mean(errors["none"])
    shown = next(o for o in outcomes if "pilot" in o.predictors)
    assert any("short fine-tuning" in line for line in QualityModel.fit(outcomes).predict(shown).why)


# --- edges --------------------------------------------------------------------------------------------------


def test_without_any_outcome_the_probe_is_the_forecast_and_this_is_said() -> None:
    empty = QualityModel.fit([])
    made = empty.predict(candidate())
    assert made.value == pytest.approx(0.75, abs=0.01) and made.high - made.low > 0.2
    assert not empty.calibrated and any("unchecked" in line for line in made.why)
    assert empty.predict_all([]) == []


def test_few_outcomes_are_used_but_not_called_calibrated(known) -> None:
    few = QualityModel.fit(known[:6])
    made = few.predict(candidate())
    assert not few.calibrated and 0 < made.low < made.value < made.high < 1
    one_set = QualityModel.fit([o for o in known if o.data == known[0].data])
    assert one_set.predict(candidate()).low < one_set.predict(candidate()).high


def test_no_probe_no_forecast(model) -> None:
    with pytest.raises(DataError, match=r"'probe'.*knn"):
        model.predict(candidate(predictors={"knn": 0.8}))


def test_outcomes_that_cannot_be_learnt_from_are_left_out(known, model) -> None:
    odd = [
        replace(known[0], data="odd", predictors={}), replace(known[0], data="odd", score=1.7),
        replace(known[0], data="odd", score=-3.0), replace(known[0], data="odd", n_test=0),
        replace(known[0], data="odd", metric="log_loss", score=0.4),
    ]  # fmt: skip
    assert QualityModel.fit([*known, *odd]).predict(candidate()) == model.predict(candidate())


def test_missing_predictors_count_as_average(known) -> None:
    rng = np.random.default_rng(0)
    patchy = [
        replace(o, predictors={k: v for k, v in o.predictors.items() if k == "probe" or rng.random() < 0.5})
        for o in known
    ]
    made = QualityModel.fit(patchy).predict(candidate(predictors={"probe": 0.75}))
    assert made.value == pytest.approx(QualityModel.fit(known).predict(candidate()).value, abs=0.04)


def test_perfect_and_hopeless_scores_are_learnt_from(known) -> None:
    ends = [replace(o, score=float(i % 2), data=f"end{i}") for i, o in enumerate(known[:10])]
    made = QualityModel.fit([*known, *ends]).predict(candidate())
    assert 0 < made.low < made.value < made.high < 1


def test_the_order_of_outcomes_and_candidates_is_nothing(known, model) -> None:
    shuffled = [known[i] for i in np.random.default_rng(0).permutation(len(known))]
    asked = [candidate(strategy=s, n_test=n) for s in GAINS for n in (50, 800)]
    first, second = model.predict_all(asked), QualityModel.fit(shuffled).predict_all(asked[::-1])[::-1]
    for a, b in zip(first, second, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-4)
    json.dumps(asdict(first[0]))


def test_predicting_together_or_one_by_one_is_the_same(model) -> None:
    asked = [candidate(backbone=b, backbone_fingerprint="") for b in BACKBONES]
    for together, alone in zip(model.predict_all(asked), map(model.predict, asked), strict=True):
        assert (together.value, together.low, together.high) == pytest.approx(
            (alone.value, alone.low, alone.high)
        )
        assert together.why == alone.why


# --- words and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictors", "said"),
    [
        ({"probe": 0.93, "majority": 0.5}, "already separate the classes (probe 93 %)"),
        ({"probe": 0.75, "majority": 0.5}, "in part (probe 75 %; the commonest class alone is 50 %)"),
        ({"probe": 0.93, "majority": 0.92}, "hardly tell the classes apart"),
        ({"probe": 0.12}, "hardly tell the classes apart (probe 12 %)."),
    ],
)
def test_what_the_probe_says(model, predictors, said) -> None:
    assert said in model.predict(candidate(predictors=predictors)).why[0]


def test_gain_and_backbone_are_put_into_words() -> None:
    model = QualityModel.fit(world(20, sets=20))
    full = model.predict(candidate(backbone="large", backbone_fingerprint="print-large")).why
    assert any("full should end" in line and "above the probe" in line for line in full)
    assert any("large has ended" in line and "higher" in line and "60 outcomes" in line for line in full)
    small = model.predict(candidate(backbone="small", backbone_fingerprint="", strategy="linear-probe")).why
    assert any("small has ended" in line and "lower" in line for line in small)


def test_backbones_are_told_apart_by_print_then_by_well_known_name() -> None:
    def made(name: str, printed: str) -> Candidate:
        return candidate(backbone=name, backbone_fingerprint=printed)

    names = Names(
        [made("bge", "aa"), made("minilm", "bb")],
        [made("model", "cc"), made("bge", "dd"), made("copy", "aa")],
    )
    assert names.level(made("renamed", "aa")) == names.level(made("copy", "aa")) == "bge"  # the same weights
    assert (
        names.level(made("bge", "dd")) == names.level(made("bge", "ee")) == "bge"
    )  # from the hub, well known
    assert names.level(made("model", "cc")) != names.level(made("model", "ff"))  # two folders of one name
    assert names.level(made("bge", "")) == "bge"


def test_logits_are_finite_and_their_variance_is_that_of_draws() -> None:
    assert logit(0.5, 10) == 0 and logit(1.0, 100) == -logit(0.0, 100) == pytest.approx(math.log(201))
    rng, p, n = np.random.default_rng(0), 0.8, 200
    drawn = [logit(k / n, n) for k in rng.binomial(n, p, 4000)]
    assert np.mean(drawn) == pytest.approx(math.log(4), abs=0.01)
    assert np.var(drawn) == pytest.approx(sampling_variance(p, n), rel=0.08)


def test_the_probe_of_few_examples_is_uncertain() -> None:
    few, many = (candidate(predictors={"probe": 0.8}, n=n) for n in (100, 1600))
    assert anchor_variance(few) == sampling_variance(0.8, 100) > 10 * anchor_variance(many)


def test_covariates_and_their_scaling_by_hand() -> None:
    some = {"probe": 0.8, "probe_last": 0.7, "pilot": 0.9, "knn": 0.6}
    found = covariates(candidate(predictors=some, n=100))
    assert found["probe"] == logit(0.8, 100) and found["examples"] == math.log(100)
    assert found["layers"] == logit(0.7, 100) - logit(0.8, 100) < 0 < found["pilot"]
    assert covariates(candidate(n=0, predictors={"probe": 0.8})).keys() == {"probe", "examples"}
    assert covariates(candidate(predictors={"probe": 0.8, "unknown": 0.6}))["unknown"] == 0.6
    both = [
        candidate(n=n, strategy=s, predictors={"probe": 0.8}) for n, s in ((100, "full"), (10_000, "lora"))
    ]
    scaling = Scaling(both)
    rows = scaling.rows(both, np.array([False, True]), Names(both))
    np.testing.assert_allclose(rows.numbers["examples"], [-1, 1])
    np.testing.assert_array_equal(rows.numbers["local"], [0, 1])
    np.testing.assert_array_equal(rows.numbers["layers"], [0, 0])  # nobody measured it
    assert rows.levels["strategy"].tolist() == ["full", "lora"]


def test_many_more_examples_than_in_all_outcomes_are_no_reason_for_knowing_nothing() -> None:
    """The shipped outcomes have 1,600 examples at most: others lie outside, but not far."""
    from foretune.forecast.ledger import shipped

    outcomes = shipped()
    assert len(outcomes) >= 96
    model = QualityModel.fit(outcomes)
    full = next(outcome for outcome in outcomes if outcome.strategy == "full" and outcome.n == 1600)
    known = replace(full, data="another", n_test=200)
    near, far = model.predict_all([known, replace(known, n=10 * known.n)])
    assert near.high - near.low < far.high - far.low < 2 * (near.high - near.low) < 0.6


# --- tasks ----------------------------------------------------------------------------------------------------


def test_errors_of_another_task_hardly_count(known) -> None:
    """Few and surprising outcomes of pictures make their own intervals wide, and leave those of texts as they are."""
    pictures = [
        replace(
            outcome,
            task="image-classification",
            backbone=f"picture-{outcome.backbone}",
            backbone_fingerprint="",
        )
        for outcome in world(5, 3, surprise=1.5, prefix="photos")
    ]
    texts, both = QualityModel.fit(known), QualityModel.fit([*known, *pictures])
    new = {"task": "image-classification", "backbone": "picture-medium", "backbone_fingerprint": "p"}
    assert width(both) < 1.5 * width(texts)
    assert width(both, **new) > 1.5 * width(both)
    told = texts.predict(candidate(**new)).why
    assert any("No outcome of full in image-classification has been measured yet" in text for text in told)
