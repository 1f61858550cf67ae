"""`foretune plan`, `foretune ledger`, and fit's --plan and --budget, as a user types them."""

import json
import warnings
from pathlib import Path

import pytest

from foretune import cli_fit
from foretune.forecast import cost
from foretune.forecast.cost import Cost


@pytest.fixture
def quick(monkeypatch):
    """Costs without measuring."""

    def forecast(job, prepared, sizes, settle, **rest):
        seconds = {"linear-probe": 4.0, "full": 40.0}[job.strategy.name]
        return {n: Cost(seconds, 10**9, 10**8, {"training": seconds - 1, "saving": 1.0}) for n in sizes}

    monkeypatch.setattr(cost, "forecast_costs", forecast)


@pytest.fixture
def plan(quick, invoke, table, tiny_bert):
    def run(*words):
        return invoke(
            "plan", table, "--backbones", tiny_bert, "--strategies", "linear-probe,full", "--offline",
            "--precision", "fp32", *words,
        )  # fmt: skip

    return run


def test_a_plan_for_people(plan, table):
    shown = plan()
    assert shown.exit_code == 0, shown.stderr
    for part in ("linear-probe", "full", "90 % intervals", "Labels:", "2 × as many", "To fine-tune:"):
        assert part in shown.stdout
    assert f"foretune fit {table} --backbone" in " ".join(shown.stdout.split())
    assert "judging its features" in shown.stderr


def test_a_plan_as_json(plan):
    result = plan("--json", "--quiet")
    assert len(result.lines) == 1 and result.stderr == ""
    keys = {"candidates", "best", "labels", "machine", "seconds_spent"}
    assert keys <= result.last.keys() and len(result.last["candidates"]) == 2
    first = result.last["candidates"][0]
    assert {"metric", "value", "low", "high"} == first["score"].keys() and first == result.last["best"]
    assert {"backbone", "strategy", "seconds", "peak_memory_bytes", "disk_bytes", "why"} <= first.keys()


def test_fit_follows_the_file(plan, invoke, table, tmp_path: Path):
    made = plan("--output", tmp_path / "plan.json", "--budget", "30s")
    assert made.exit_code == 0 and f"--plan {tmp_path / 'plan.json'}" in " ".join(made.stderr.split())
    result = invoke(
        "fit", table, "--plan", tmp_path / "plan.json", "--output", tmp_path / "run", "--offline",
        "--precision", "fp32", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.last["strategy"] == "linear-probe"
    assert json.loads((tmp_path / "run/foretune.json").read_text())["forecast"]["metric"] == "accuracy"
    assert "Forecast and outcome" in (tmp_path / "run/report.html").read_text()


def test_the_commands_shown_repeat_what_decides_the_split(plan, invoke, table, tmp_path: Path):
    made = plan(
        "--seed", "3", "--target", "mood", "--strategies", "linear-probe", "--output", tmp_path / "plan.json"
    )
    assert made.exit_code == 0, made.stderr
    same = "--target mood --seed 3 --precision fp32 --offline"
    assert f"--strategy linear-probe {same}" in " ".join(made.stdout.split())
    shown = " ".join(made.stderr.split())
    assert shown.endswith(f"foretune fit {table} --plan {tmp_path / 'plan.json'} {same}")
    words = shown.partition("To follow it: foretune ")[2].split()
    followed = invoke(*words, "--epochs", "1", "--output", tmp_path / "run")
    assert followed.exit_code == 0, followed.stderr
    other = invoke(
        "fit", table, "--plan", tmp_path / "plan.json", "--offline", "--output", tmp_path / "other"
    )
    assert other.exit_code == 2 and "such as --target, --seed" in " ".join(other.stderr.split())


def test_broken_files_are_skipped_while_planning(invoke, table, monkeypatch):
    from foretune import api

    asked = []
    monkeypatch.setattr(api, "plan", lambda *given, recipe, **rest: asked.append(recipe.skip_broken) or 1 / 0)
    invoke("plan", table, "--skip-broken")
    assert asked == [True]


def test_the_ledger_tells_what_was_forecast(plan, invoke, table, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path / "ledger.jsonl"))
    assert "is empty" in invoke("ledger").stdout
    plan("--output", tmp_path / "plan.json", "--strategies", "linear-probe", "--quiet")
    given = ("--offline", "--precision", "fp32", "--quiet")
    fitted = invoke("fit", table, "--plan", tmp_path / "plan.json", "--output", tmp_path / "run", *given)
    assert fitted.exit_code == 0 and "90 % interval" in fitted.stdout
    shown = invoke("ledger")
    assert shown.exit_code == 0 and "linear-probe" in shown.stdout and "coverage" in shown.stdout
    found = invoke("ledger", "--json").last
    assert found["ledger"] == str(tmp_path / "ledger.jsonl") and found["summary"]


def test_a_ledger_that_is_off_damaged_or_unreadable_is_not_called_empty(invoke, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FORETUNE_LEDGER", "off")
    assert "switched off" in invoke("ledger").stdout
    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path))
    shown = invoke("ledger")
    assert "Warning: The ledger" in shown.stderr and "cannot be read" in " ".join(shown.stderr.split())
    assert "is empty" not in shown.stdout and "cannot be read" in " ".join(
        invoke("ledger", "--json").stderr.split()
    )
    (tmp_path / "ledger.jsonl").write_text("what\n")
    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path / "ledger.jsonl"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the command line does
        shown = invoke("ledger")
    assert "1 of 1 lines" in " ".join(shown.stderr.split()) and "Nothing was read" in shown.stdout


def test_the_ledger_shows_a_loss_as_a_loss(invoke, tmp_path: Path, monkeypatch):
    from foretune.forecast import ledger

    monkeypatch.setenv("FORETUNE_LEDGER", str(tmp_path / "ledger.jsonl"))
    ledger.record(ledger.Outcome(
        data="set", task="text-classification", n=40, classes=2, tokens=9.0, backbone="small", strategy="full",
        backbone_fingerprint="print", metric="log_loss", n_test=8, score=0.692, seconds=9.0, peak_memory_bytes=1,
    ))  # fmt: skip
    assert "0.692 log loss" in " ".join(invoke("ledger").stdout.split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--strategies", "ful"), 2, "Did you mean 'full'"),
        (("--backbones", "minilm-l7"), 1, "minilm-l6"),
        (("--goal", "cheap"), 2, "expected one of accuracy, speed, size"),
        (("--budget", "1s"), 2, "smallest --budget that would do"),
        (("--budget", "soon"), 2, "A time is 'soon'"),
        (("--output", "/nowhere/plan.json"), 2, "there is no folder"),
        (("--output", "/"), 2, "--output / is a folder"),
        (("--budget", "0.01"), 2, "more than the 0 s there are"),
    ],
)
def test_errors_say_what_to_do(plan, words, code, message):
    result = plan(*words)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_a_budget_of_the_command_counts_its_start(monkeypatch):
    assert 0 <= cli_fit.process_age() < 86_400
    monkeypatch.setattr(cli_fit.Path, "read_text", lambda self, **kw: (_ for _ in ()).throw(OSError()))
    assert cli_fit.process_age() == 0.0


def test_trainable_layers_imply_the_strategy(invoke, table, fit_options, tmp_path: Path):
    result = invoke(
        "fit", table, *fit_options, "--trainable-layers", "1", "--output", tmp_path / "run", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert result.last["strategy"] == "top-layers"
    assert "layers = 1" in (tmp_path / "run/recipe.toml").read_text()
    too_many = invoke("fit", table, *fit_options, "--trainable-layers", "9", "--output", tmp_path / "b")
    assert too_many.exit_code == 2 and "has 2 layers" in too_many.stderr and not (tmp_path / "b").exists()


def test_strategies_are_listed(invoke):
    shown = invoke("models").stdout
    assert all(name in shown for name in ("top-layers", "lora", "lp-ft", "gradual-unfreezing"))
    assert {s["name"] for s in invoke("models", "--json").last["strategies"]} >= {"full", "lora"}
