"""`benchmarks/forecast.py` on outcomes whose truth is known."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foretune.forecast import ledger

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "forecast.py"
BACKBONES = {"minilm-l3": -0.4, "minilm-l6": 0.0, "bge-small-en": 0.5}
GAINS = {"linear-probe": 0.0, "full": 0.7}


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(PROGRAM.parent))  # as for a program that is run
    spec = importlib.util.spec_from_file_location("forecast_benchmark", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(PROGRAM.parent))


def lines(seed: int = 0, sets: int = 9, informative: bool = True, tests: int = 1000) -> list[dict]:
    """Lines as `benchmarks/ledger.py` writes them; uninformative predictors are drawn at random."""
    rng, made = np.random.default_rng(seed), []
    for number in range(sets):
        level, surprise = rng.normal(1, 0.7), rng.normal(0, 0.1)
        for backbone, better in BACKBONES.items():
            features = level + better + rng.normal(0, 0.1)
            probe = rng.binomial(400, _share(features)) / 400 if informative else rng.uniform(0.4, 0.9)
            for strategy, gain in GAINS.items():
                truth = features + gain * (1 + surprise) if informative else rng.normal(1, 0.7)
                score = rng.binomial(tests, _share(truth)) / tests
                made.append({
                    "key": f"set{number}/{backbone}/{strategy}/400/0", "data": f"set{number}", "backbone": backbone,
                    "strategy": strategy, "n": 400, "seed": 0, "classes": 2, "train_rows": 400, "test_rows": tests,
                    "metrics": {"test": {"accuracy": {"value": score}, "macro_f1": {"value": score / 2}}},
                    "train": {"peak_memory_bytes": 10**9}, "seconds": 100.0, "predictor_seconds": 5.0,
                    "predictors": {"probe": probe, "knn": probe, "h_score": probe, "log_me": probe, "tokens": 20.0},
                })  # fmt: skip
    return made


def _share(logits: float) -> float:
    return 1 / (1 + math.exp(-logits))


def written(folder: Path, made: list[dict]) -> Path:
    path = folder / "outcomes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in made))
    return path


def judged(program, folder: Path, made: list[dict]) -> dict:
    return program.judge(program.read_lines(written(folder, made), "accuracy")[0])


def test_where_predictors_inform_the_forecast_is_right_and_ranks(program, tmp_path) -> None:
    found = judged(program, tmp_path, lines(sets=7))
    ours = found["methods"]["Foretune"]
    assert (
        ours["coverage"]["n"] == 42 and ours["coverage"]["high"] >= 0.9 and ours["coverage"]["value"] >= 0.8
    )
    assert ours["tau"] > 0.75 and ours["tau_backbones"] > 0.75 and ours["regret"] < 0.01
    assert 0.01 < ours["half_width"] < 0.12 and ours["error"] < 0.04
    assert ours["error"] <= found["methods"]["probe + mean gain of the strategy"]["error"] + 0.005
    assert set(found["sets"]) == {f"set{i}" for i in range(7)}
    after = found["methods"]["Foretune, after its first choice was fitted"]
    assert after["coverage"]["n"] == 35 and after["regret"] is None
    assert found["ceiling"]["tau"] > 0.8


def test_where_they_do_not_it_ranks_by_chance_and_says_so_by_its_width(program, tmp_path) -> None:
    found = judged(program, tmp_path, lines(informative=False, sets=9))
    ours = found["methods"]["Foretune"]
    assert abs(ours["tau"]) < 0.35 and ours["half_width"] > 0.1 and ours["coverage"]["value"] > 0.8


def test_pilots_are_judged_beside_the_same_sets_without(program, tmp_path) -> None:
    """Pilots that know more than the probe: the gain of fine-tuning differs from set to set, and they see it."""
    made, rng = lines(sets=8), np.random.default_rng(1)
    for line in made:
        score = line["metrics"]["test"]["accuracy"]
        known = line["predictors"] = dict(line["predictors"])
        if line["strategy"] == "full":
            drift = 1.5 * float(np.sin(7 * int(line["data"][3:]) + len(line["backbone"])))
            score["value"] = _share(math.log(score["value"] / (1.001 - score["value"])) + drift)
            if line["data"] != "set7":
                known |= {"pilot": rng.binomial(400, score["value"]) / 400, "pilot_probe": known["probe"]}
    found = judged(program, tmp_path, made)["methods"]
    given, without = found["Foretune, with pilots"], found["Foretune, the same sets without"]
    assert given["coverage"]["n"] == without["coverage"]["n"] == 42  # of 7 of the 8 sets
    assert given["error"] < 0.8 * without["error"] and given["tau"] > without["tau"]
    plain = [
        line | {"predictors": {k: v for k, v in line["predictors"].items() if "pilot" not in k}}
        for line in made
    ]
    again = judged(program, tmp_path, plain)["methods"]
    assert "Foretune, with pilots" not in again and again["Foretune"] == found["Foretune"]


def test_no_score_of_the_set_left_out_reaches_its_forecast(program, tmp_path, monkeypatch) -> None:
    predict, asked = program.QualityModel.predict_all, []

    def watched(self, candidates):
        made = predict(self, candidates)
        if (
            len(candidates) == 6 and candidates[0].data == "set1"
        ):  # all of the set's, not the rest after the first
            asked.append([forecast.value for forecast in made])
        return made

    monkeypatch.setattr(program.QualityModel, "predict_all", watched)
    made = lines(sets=3)
    judged(program, tmp_path, made)
    for line in made:
        if line["data"] == "set1":
            line["metrics"]["test"]["accuracy"]["value"] /= 2
            line["seconds"] *= 3
    judged(program, tmp_path, made)
    assert len(asked) == 2 and asked[0] == asked[1]


def test_the_dev_rows_can_be_judged_instead(program, tmp_path) -> None:
    made = lines(sets=2)
    for line in made:
        line["metrics"]["dev"] = {"accuracy": {"value": 0.25}}
    made[0]["dev_rows"] = 40
    found = [line.outcome for line in program.read_lines(written(tmp_path, made), "accuracy", "dev")[0]]
    assert {outcome.score for outcome in found} == {0.25} and sorted(o.n_test for o in found) == [40] + [
        150
    ] * 11


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_scipy(program, seed) -> None:
    from scipy.stats import kendalltau

    tau_b = sys.modules["tally"].tau_b
    a, b = np.random.default_rng(seed).integers(0, 6, (2, 12))
    assert tau_b(a, b) == pytest.approx(kendalltau(a, b)[0])
    assert tau_b(a, a * 0) is None and tau_b(a * 0, b) == 0


def test_a_method_that_tells_nothing_apart(program) -> None:
    rows = [program.line_of(line, "accuracy").outcome for line in lines(sets=1)]
    tally = program.Tally.empty()
    tally.rank([1] * len(rows), rows)
    scores = np.array([row.score for row in rows])
    assert tally.taus == [0.0] and tally.regrets[0] == pytest.approx(scores.max() - scores.mean())


def test_tau_and_regret_by_hand(program) -> None:
    rows = [program.line_of(line, "accuracy").outcome for line in lines(sets=1)][:3]
    rows = [
        program.replace(row, score=score, strategy="full")
        for row, score in zip(rows, (0.7, 0.9, 0.8), strict=True)
    ]
    tally = program.Tally.empty()
    tally.rank(
        [(0, 1), (0, 2), (0, 3)], rows
    )  # one of three pairs in the wrong order; the best one called second
    assert tally.taus == pytest.approx([1 / 3]) and tally.backbone_taus == pytest.approx([1 / 3])
    assert tally.regrets == pytest.approx([0.1])


def test_chance_alone_needs_the_width_that_drawn_rows_show(program) -> None:
    line = program.line_of(lines(sets=1, tests=600)[0], "accuracy").outcome
    row = program.replace(line, score=0.8, predictors=line.predictors | {"probe": 0.8})
    rng = np.random.default_rng(0)
    seen, probe = rng.binomial(row.n_test, 0.8, 20_000) / row.n_test, rng.binomial(row.n, 0.8, 20_000) / row.n
    needed = np.quantile(np.abs(seen - probe), 0.9)
    assert program.left_to_chance([row]) == pytest.approx(needed, rel=0.05)
    many = program.replace(row, n=10**9, n_test=10**9)
    assert program.left_to_chance([row, many]) == pytest.approx(program.left_to_chance([row]) / 2, abs=1e-3)


def test_cost_counts_the_predictors_once_a_backbone(program, tmp_path) -> None:
    made = lines(sets=2)
    assert judged(program, tmp_path, made)["cost"] == pytest.approx(2 * 3 * 5 / (2 * 6 * 100))
    del made[0]["predictor_seconds"], made[1]["predictor_seconds"]
    assert judged(program, tmp_path, made)["cost"] is None


def test_an_alternative_without_its_number_is_left_out(program, tmp_path) -> None:
    made = lines(sets=3)
    for line in made:
        del line["predictors"]["h_score"]
        line["backbone"] = f"new-{line['backbone']}"
    methods = judged(program, tmp_path, made)["methods"]
    assert (
        "H-score alone" not in methods and "largest backbone first" not in methods and "kNN alone" in methods
    )


def test_the_command_prints_tables_and_json_and_ships(tmp_path) -> None:
    made = lines(sets=3)
    without = {key: value for key, value in made[0].items() if key != "predictors"} | {"data": "other"}
    path, shipped = written(tmp_path, [*made, without]), tmp_path / "shipped.jsonl.gz"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(path), "--metric", "macro_f1", "--ship", str(shipped)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    table, found = done.stdout.rsplit("\n", 2)[0], json.loads(done.stdout.splitlines()[-1])
    assert "18 outcomes, 1 without predictors" in table and "| Foretune |" in table and "| set2 |" in table
    assert found["outcomes"] == 18 and found["metric"] == "macro_f1"
    outcomes = [ledger.Outcome.from_json(line) for line in gzip.decompress(shipped.read_bytes()).splitlines()]
    assert len(outcomes) == 18 and {o.metric for o in outcomes} == {"macro_f1"}


def test_one_data_set_is_not_enough(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(written(tmp_path, lines(sets=1)))], capture_output=True, text=True
    )
    assert done.returncode == 1 and "fewer than two data sets" in done.stderr
