from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "support_tickets.csv"


def test_models(invoke) -> None:
    from foretune.backbones.catalogue import CATALOGUE

    shown = invoke("models").stdout
    assert all(entry.name in shown and entry.source in shown and entry.about in shown for entry in CATALOGUE)


def test_models_json(invoke) -> None:
    result = invoke("models", "--json")
    assert len(result.lines) == 1
    first = result.last["models"][0]
    assert (first["name"], first["source"]) == ("minilm-l6", "bundled")
    assert {"languages", "layers", "width", "parameters", "about"} <= first.keys()


def test_inspect(invoke) -> None:
    result = invoke("inspect", EXAMPLE)
    assert result.exit_code == 0, result.stderr
    for part in ("959 rows", "text", "label", "target", "refund_request", "Characters per text", "longest"):
        assert part in result.stdout


def test_inspect_json(invoke) -> None:
    found = invoke("inspect", EXAMPLE, "--json").last
    assert (found["rows"], found["text"], found["target"]) == (959, "text", "label")
    assert len(found["classes"]) == 10


def test_inspect_shows_labels_as_they_are(invoke, tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    rows = [f"a sentence number {i} of some length,{'[red]' if i % 2 else ':smile:'}" for i in range(8)]
    data.write_text("text,label\n" + "\n".join(rows))
    shown = invoke("inspect", data).stdout
    assert "[red]" in shown
    assert ":smile:" in shown


def test_inspect_shows_warnings(invoke, tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("text,label\n" + "the same words again,a\nthe same words again,b\n" * 4)
    result = invoke("inspect", data)
    assert result.exit_code == 0
    assert "Warning:" in result.stdout


@pytest.mark.parametrize("option", [("--target", "labels"), ("--text", "txt")])
def test_inspect_wrong_column(invoke, option: tuple[str, str]) -> None:
    result = invoke("inspect", EXAMPLE, *option, "--json")
    assert result.exit_code == 1
    assert "Did you mean" in result.last["message"]
