"""How good the forecasts are: leave one data set out, over outcomes that `benchmarks/ledger.py` measured.

    python benchmarks/forecast.py OUTCOMES.jsonl [--metric accuracy] [--split test] [--learn-from 400] [--ship PATH]

For every data set the quality model is fitted on all others and forecasts every candidate (backbone x strategy)
of this one; `--learn-from` N: on outcomes of N training rows only, to see what forecasts for other sizes are worth.
Prints Markdown tables and, as the last line, a JSON object. `--ship` also writes the outcomes as the shipped
ledger. Lines need the field `predictors` (numbers measured without training) and may have `predictor_seconds`;
lines without predictors are counted and left out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from foretune.forecast.features import anchor_variance, logit, sampling_variance
from foretune.forecast.ledger import Outcome, latest, write_shipped
from foretune.forecast.quality import Z90, Forecast, QualityModel
from foretune.planning_scores import gained
from ledger import SETS
from tally import Tally, mean

#: Millions of parameters, for lines whose predictors do not say (key "parameters").
PARAMETERS = {
    "roformer-zh-small": 15.3, "minilm-l3": 17.4, "minilm-l6": 22.7, "granite-30m-en": 30.3, "bge-small-en": 33.4,
    "mpnet-base": 109.5,
}  # fmt: skip
DEV_ROWS = 150  # of `benchmarks/ledger.py`, for lines that do not say
Judge = Callable[[Outcome], float]


@dataclass(frozen=True)
class Line:
    """An outcome with what the plain alternatives and the cost need."""

    outcome: Outcome
    seed: int
    predictor_seconds: float | None
    size: int = 0  # training rows that were asked for; small sets have fewer

    @property
    def choice(self) -> tuple[str, int, int]:
        """Return what the candidates of one choice share: data set, size, seed."""
        return self.outcome.data, self.outcome.n, self.seed


def read_lines(path: Path, metric: str, split: str = "test") -> tuple[list[Line], int]:
    """Return the lines that can be judged, and how many others there are."""
    found = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    lines = [line_of(values, metric, split) for values in found if values.get("predictors")]
    return sorted(lines, key=lambda line: line.choice), len(found) - len(lines)


def line_of(values: dict[str, Any], metric: str, split: str = "test") -> Line:
    """Return one line of `benchmarks/ledger.py`, scored on its rows of `split`.

    "own" takes rows drawn from the same source as the training rows: the test rows where they were split off it,
    else the dev rows. Published test sets differ from their training sets by points, which no forecast can know.
    """
    if split == "own":
        split = "test" if of_own_draw(values) else "dev"
    outcome = Outcome(
        data=values["data"], task=values.get("task", "text-classification"), n=values["train_rows"],
        classes=values["classes"], tokens=float(values.get("tokens") or values["predictors"].get("tokens", 0.0)),
        backbone=values["backbone"], backbone_fingerprint=values.get("backbone_fingerprint", ""),
        strategy=values["strategy"], metric=metric, predictors=values["predictors"],
        n_test=values["test_rows"] if split == "test" else values.get("dev_rows", DEV_ROWS),
        score=values["metrics"][split][metric]["value"], seconds=values["seconds"],
        peak_memory_bytes=values["train"]["peak_memory_bytes"], version=values.get("version", ""),
        machine=values.get("machine", ""), date=values.get("date", ""),
    )  # fmt: skip
    return Line(outcome, values.get("seed", 0), values.get("predictor_seconds"), values.get("n", outcome.n))


def of_own_draw(values: dict[str, Any]) -> bool:
    """Return whether a line's test rows are drawn from where its training rows are."""
    return values.get("test") == "own" or (values["data"] in SETS and SETS[values["data"]].test is None)


# --- leave one data set out -------------------------------------------------------------------------------


def judge(lines: Sequence[Line], learn_from: Collection[int] = ()) -> dict[str, Any]:
    """Return the result of every method, of every data set and size, and the cost of planning.

    `learn_from`: training rows of the outcomes that the model is fitted on; all where it is empty.
    """
    methods: dict[str, Tally] = {}
    sets: dict[str, Tally] = {}
    sizes: dict[str, Tally] = {}
    _judge_pilots(methods, lines)
    lines = [replace(line, outcome=_unpiloted(line.outcome)) for line in lines]
    for name in sorted({line.outcome.data for line in lines}):
        known = [line for line in lines if not learn_from or line.size in learn_from]
        others = [line.outcome for line in known if line.outcome.data != name]
        model = QualityModel.fit(others)
        own = [line for line in lines if line.outcome.data == name]
        for _, held in groupby(own, lambda line: line.choice):
            group = list(held)
            outcomes = [line.outcome for line in group]
            made = model.predict_all([_blind(outcome) for outcome in outcomes])
            for tally in (
                methods.setdefault("Foretune", Tally.empty()),
                sets.setdefault(name, Tally.empty()),
                sizes.setdefault(f"{group[0].size} rows", Tally.empty()),
            ):
                tally.forecast(made, outcomes)
                tally.rank([forecast.value for forecast in made], outcomes)
            _after_first(
                methods.setdefault("Foretune, after its first choice was fitted", Tally.empty()),
                others,
                made,
                outcomes,
            )
            _alternatives(methods, others, outcomes)
    return {
        "methods": {name: tally.result() for name, tally in methods.items()},
        "sets": {name: tally.result() for name, tally in sets.items()},
        "sizes": {name: tally.result() for name, tally in sizes.items()},
        "ceiling": measured_again([line.outcome for line in lines]),
        "chance": {
            f"{size} rows" if size else "all": left_to_chance(
                [line.outcome for line in lines if size in (0, line.size)]
            )
            for size in (0, *sorted({line.size for line in lines}))
        },
        "cost": cost_share(lines),
        "labels": judge_labels([line for line in lines if "curve_x2" in line.outcome.predictors]),
    }


def _judge_pilots(methods: dict[str, Tally], lines: Sequence[Line]) -> None:
    """Forecast the data sets that have pilots with and without them, each left out."""
    piloted = sorted({line.outcome.data for line in lines if "pilot" in line.outcome.predictors})
    for name in piloted:
        for label, known in (("with pilots", lambda o: o), ("the same sets without", _unpiloted)):
            held = [known(line.outcome) for line in lines if line.outcome.data == name]
            model = QualityModel.fit([known(line.outcome) for line in lines if line.outcome.data != name])
            made = model.predict_all([_blind(outcome) for outcome in held])
            tally = methods.setdefault(f"Foretune, {label}", Tally.empty())
            tally.forecast(made, held)
            tally.rank([forecast.value for forecast in made], held)


def _unpiloted(outcome: Outcome) -> Outcome:
    """Return an outcome without what a pilot of it came to."""
    kept = {name: value for name, value in outcome.predictors.items() if not name.startswith("pilot")}
    return replace(outcome, predictors=kept)


def _blind(outcome: Outcome) -> Outcome:
    """Return an outcome whose result cannot be read: what the model forecasts from holds no score."""
    return replace(outcome, score=-1.0, seconds=-1.0, peak_memory_bytes=0)


def _after_first(
    tally: Tally, others: list[Outcome], made: Sequence[Forecast], outcomes: list[Outcome]
) -> None:
    """Forecast the rest once the candidate forecast to be best was fitted, as the local ledger would."""
    first = int(np.argmax([forecast.value for forecast in made]))
    rest = [outcome for i, outcome in enumerate(outcomes) if i != first]
    if rest:
        again = QualityModel.fit([*others, outcomes[first]]).predict_all(
            [_blind(outcome) for outcome in rest]
        )
        tally.forecast(again, rest)
        tally.rank([forecast.value for forecast in again], rest, regret=False)


def _alternatives(methods: dict[str, Tally], others: list[Outcome], outcomes: list[Outcome]) -> None:
    """Rank by one number each: the strategy that was best on the other sets first, then the backbone."""
    means = _by_strategy(others, lambda o: o.score)
    for name, value in ALTERNATIVES.items():
        if all(_known(value, outcome) for outcome in outcomes):
            keys = [(means.get(o.strategy, 0.0), value(o)) for o in outcomes]
            methods.setdefault(name, Tally.empty()).rank(keys, outcomes)
    gains = _by_strategy(others, lambda o: o.score - o.predictors["probe"])
    misses = [abs(o.score - o.predictors["probe"] - gains[o.strategy]) for o in others]
    reach = float(np.quantile(misses, 0.9))
    values = [o.predictors["probe"] + gains.get(o.strategy, 0.0) for o in outcomes]
    tally = methods.setdefault("probe + mean gain of the strategy", Tally.empty())
    tally.forecast([Forecast(v, v - reach, v + reach, []) for v in values], outcomes)
    tally.rank(values, outcomes)


ALTERNATIVES: dict[str, Judge] = {
    "largest backbone first": lambda o: o.predictors.get("parameters", PARAMETERS.get(o.backbone, np.nan)),
    "H-score alone": lambda o: o.predictors["h_score"],
    "LogME alone": lambda o: o.predictors["log_me"],
    "kNN alone": lambda o: o.predictors["knn"],
    "linear probe alone": lambda o: o.predictors["probe"],
}


def _known(value: Judge, outcome: Outcome) -> bool:
    try:
        return bool(np.isfinite(value(outcome)))
    except KeyError:
        return False


def _by_strategy(outcomes: Sequence[Outcome], value: Judge) -> dict[str, float]:
    names = {outcome.strategy for outcome in outcomes}
    return {name: float(np.mean([value(o) for o in outcomes if o.strategy == name])) for name in names}


def measured_again(outcomes: Sequence[Outcome], draws: int = 100) -> dict[str, float | None]:
    """Return what an oracle that knows the measured scores would reach on other test rows of the same number.

    Test rows are drawn for each candidate by itself; candidates that share their rows differ by less.
    """
    rng, tally, misses = np.random.default_rng(0), Tally.empty(), []
    for _, held in groupby(sorted(outcomes, key=lambda o: (o.data, o.n)), lambda o: (o.data, o.n)):
        tried = list(held)
        scores = np.array([o.score for o in tried])
        for _ in range(draws):
            again = rng.binomial([o.n_test for o in tried], scores) / [o.n_test for o in tried]
            tally.rank(list(scores), [replace(o, score=float(s)) for o, s in zip(tried, again, strict=True)])
            misses += list(np.abs(again - scores))
    return {"tau": mean(tally.taus), "half_width": float(np.quantile(misses, 0.9)), "error": mean(misses)}


def judge_labels(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Return how good the forecasts for 2 to 5 times the labels are, by strategy, each data set left out.

    An outcome is forecast from fewer rows as `plan` forecasts it: their score, moved by what the probe's learning
    curve gains. That gain is known at 2 and 5 times the rows, and taken in between by the logarithm.
    """
    found: dict[str, Tally] = {}
    for name in sorted({line.outcome.data for line in lines}):
        pairs = [
            (few.outcome, many.outcome)
            for few in lines
            for many in lines
            if few.outcome.data == many.outcome.data == name
            and few.seed == many.seed
            and few.outcome.backbone == many.outcome.backbone
            and few.outcome.strategy == many.outcome.strategy
            and 2 <= many.outcome.n / few.outcome.n <= 5
        ]
        if not pairs:
            continue
        model = QualityModel.fit([line.outcome for line in lines if line.outcome.data != name])
        now = model.predict_all([_blind(replace(few, n_test=many.n_test)) for few, many in pairs])
        for (few, many), forecast in zip(pairs, now, strict=True):
            moved = Forecast(**_grown(forecast, few.predictors, many.n / few.n), why=[])
            for label in ("all", many.strategy):
                found.setdefault(label, Tally.empty()).forecast([moved], [many])
    return {name: tally.result() for name, tally in found.items()}


def _grown(forecast: Forecast, predictors: dict[str, float], times: float) -> dict[str, float]:
    at = math.log(times / 2) / math.log(5 / 2)
    gain, width = (
        predictors[f"curve_x2{part}"] + at * (predictors[f"curve_x5{part}"] - predictors[f"curve_x2{part}"])
        for part in ("", "_width")
    )
    return gained(forecast.value, forecast.low, forecast.high, gain, width)


def left_to_chance(outcomes: Sequence[Outcome]) -> float:
    """Return the mean half-width of 90 % intervals about forecasts that err by nothing but the draw of rows.

    The rows are those that the score is measured on, and those that the probe, from which a forecast starts, is
    cross-validated on.
    """
    widths = []
    for o in outcomes:
        at = logit(o.score, o.n_test)
        reach = Z90 * math.sqrt(sampling_variance(o.score, o.n_test) + anchor_variance(o))
        low, high = 1 / (1 + math.exp(reach - at)), 1 / (1 + math.exp(-reach - at))
        widths.append((high - low) / 2)
    return float(np.mean(widths))


def cost_share(lines: Sequence[Line]) -> float | None:
    """Return the time of all predictors, once a backbone, as a share of fitting every candidate; None: not measured."""
    spent = {(line.choice, line.outcome.backbone): line.predictor_seconds for line in lines}
    times = [seconds for seconds in spent.values() if seconds is not None]
    return sum(times) / sum(line.outcome.seconds for line in lines) if len(times) == len(spent) else None


# --- tables ------------------------------------------------------------------------------------------------


def tables(found: dict[str, Any]) -> str:
    """Return the results as Markdown; scores in points."""
    head = "| coverage of 90 % | half-width | mean error | tau, all | tau, backbones | regret | worst |"
    head += "\n|" + "---|" * 8
    parts = [f"| method {head}", *(_row(name, result) for name, result in found["methods"].items())]
    parts += [
        "",
        f"| data set left out {head}",
        *(_row(name, result) for name, result in (found["sets"] | found["sizes"]).items()),
    ]
    parts += [
        "",
        f"| forecast for 2 to 5 times the labels {head}",
        *(_row(f"{name} ({result['coverage']['n']})", result) for name, result in found["labels"].items()),
    ]
    ceiling, cost = found["ceiling"], found["cost"]
    parts += [
        "",
        f"An oracle that knows the measured scores would have tau {ceiling['tau']:.2f} on a second test set of the "
        f"same size, and need a half-width of {100 * ceiling['half_width']:.1f} points.",
        "The draw of the probe's rows and of the held-out rows alone needs a half-width, in points, of "
        + ", ".join(f"{100 * width:.1f} ({name})" for name, width in found["chance"].items())
        + ".",
        "Planning cost: " + ("not measured." if cost is None else f"{cost:.1%} of fitting every candidate."),
    ]
    return "\n".join(parts)


def _row(name: str, result: dict[str, Any]) -> str:
    inside = result["coverage"]
    cells = [
        f"{inside['value']:.0%} ({inside['low']:.0%}–{inside['high']:.0%})" if inside else "–",
        *(_cell(result[key], 100, 1) for key in ("half_width", "error")),
        *(_cell(result[key], 1, 2) for key in ("tau", "tau_backbones")),
        *(_cell(result[key], 100, 1) for key in ("regret", "worst_regret")),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _cell(value: float | None, scale: int, digits: int) -> str:
    return "–" if value is None else f"{scale * value:.{digits}f}"


def main() -> None:
    """Judge the outcomes of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument(
        "--split", choices=("test", "dev", "own"), default="test", help="dev: rows of the training file"
    )
    parser.add_argument(
        "--learn-from", type=int, nargs="+", default=(), help="training rows of these outcomes only"
    )
    parser.add_argument("--ship", type=Path, help="write the outcomes as the shipped ledger to this file")
    given = parser.parse_args()
    lines, others = read_lines(given.outcomes, given.metric, given.split)
    if len({line.outcome.data for line in lines}) < 2:
        raise SystemExit(
            f"{given.outcomes} has outcomes with predictors of fewer than two data sets; nothing to leave out."
        )
    if given.ship:
        write_shipped(latest([line.outcome for line in lines]), given.ship)
    found = judge(lines, given.learn_from) | {
        "outcomes": len(lines),
        "without_predictors": others,
        "metric": given.metric,
        "split": given.split,
    }
    print(
        f"{len(lines)} outcomes, {others} without predictors left out; metric {given.metric}, {given.split} rows\n"
    )
    print(tables(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
