"""What README and guide say is true: every command runs, every option, link, key and message exists.

Bash blocks run verbatim, in order, in a temporary folder with a shortened copy of the example data; the
Python blocks of a document then run in one process. Preamble: the README's scikit-learn example takes
`texts` and `labels` from its reader, so they are defined beforehand (`PREAMBLE`).
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [
    ("README.md", "README.zh-CN.md"),
    ("docs/guide.md", "docs/guide.zh-CN.md"),
    ("docs/tasks.md", "docs/tasks.zh-CN.md"),
]
DOCUMENTS = [name for pair in PAIRS for name in pair]
GUIDES, TASK_PAGES = PAIRS[1:]
PAGES = [*DOCUMENTS, "ARCHITECTURE.md", "CHANGELOG.md"]
NOT_RUN = 4  # blocks per document at most
FOREIGN = {"--help", "--logdir"}  # of every command; of tensorboard
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)
PREAMBLE = """
texts = ["where is my parcel", "the parcel is late", "my refund please", "give my money back"] * 5
labels = ["delivery", "delivery", "refund", "refund"] * 5
"""
RUNNER = """
import json, sys
namespace = {"__name__": "__main__"}
for name, code in json.load(open(sys.argv[1], encoding="utf-8")):
    exec(compile(code, name, "exec"), namespace)
"""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    reason: str | None  # why it is not run

    @property
    def lines(self):
        """The lines of a shell block without comments."""
        return [line for line in (raw.split(" # ")[0].rstrip() for raw in self.code.splitlines()) if line]


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks_of(document, *languages):
    found = [Block(m["language"], m["code"], m["reason"]) for m in BLOCK.finditer(text_of(document))]
    return [block for block in found if block.language in languages]


def prose_of(document):
    """The text between the blocks, and the blocks' commands with their comments."""
    return BLOCK.sub("", text_of(document))


# --- running -----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path):
    """A folder with examples/support_tickets.csv: ten short rows of each label of the real one."""
    with (ROOT / "examples/support_tickets.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"][:40], row["label"]) for row in csv.DictReader(file)]
    labels = sorted({label for _, label in rows})
    kept = [row for label in labels for row in [r for r in rows if r[1] == label][:10]]
    (tmp_path / "examples").mkdir()
    with (tmp_path / "examples/support_tickets.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *kept])
    return tmp_path


def environment(folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "FORETUNE_CACHE": str(folder / ".cache"), "HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"}
    own["FORETUNE_LEDGER"] = str(folder / "ledger.jsonl")
    return {**os.environ, **own}


def run(command, folder):
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def run_document(document, folder, preamble=""):
    """Run the shell blocks one by one, then the Python blocks in one process."""
    blocks = [block for block in blocks_of(document, "bash", "python") if block.reason is None]
    shells = [block for block in blocks if block.language == "bash"]
    assert blocks[: len(shells)] == shells, "Python blocks, which share a process, come last"
    for recipe in blocks_of(document, "toml"):
        (folder / recipe.code.split("\n")[0].removeprefix("# ")).write_text(recipe.code, encoding="utf-8")
    for block in shells:
        script = "\n".join(line for line in block.code.splitlines() if not line.startswith("make "))
        if script.strip():
            run(["bash", "-euo", "pipefail", "-c", script], folder)
    parts = [
        (f"{document}, Python block {n}", block.code) for n, block in enumerate(blocks[len(shells) :], 1)
    ]
    (folder / "blocks.json").write_text(json.dumps([("preamble", preamble), *parts]), encoding="utf-8")
    run([sys.executable, "-c", RUNNER, "blocks.json"], folder)


@pytest.mark.timeout(900)
def test_the_readme_runs(place):
    run_document("README.md", place, PREAMBLE)
    assert (place / "runs/tickets/report.html").exists()
    with (place / "predictions.csv").open(encoding="utf-8") as file:
        assert [row["prediction"] != "" for row in csv.DictReader(file)] == [True] * 100


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_guide_runs_and_names_what_a_run_leaves(place):
    run_document("docs/guide.md", place)
    result = json.loads((place / "result.json").read_text(encoding="utf-8").splitlines()[-1])
    record = json.loads((place / "runs/quick/foretune.json").read_text(encoding="utf-8"))
    words = {*result, *result["train"], *result["baselines"], *result["baselines"]["tfidf_logreg"], *record}
    words |= {path.name for path in (place / "runs/quick").iterdir()}
    for guide in GUIDES:
        assert sorted(word for word in words if f"`{word}`" not in text_of(guide)) == []
    listed = text_of("docs/guide.md").split("## 13.")[1].split("foretune.json` is written")[0]
    files = {name for name in re.findall(r"`([\w.]+\.\w+)`", listed) if "." in name}
    of_other_tasks = {"modules.json", "preprocessor_config.json"}
    assert files - of_other_tasks == {path.name for path in (place / "runs/quick").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tasks_page_runs_and_tells_what_comes_out(place):
    run_document("docs/tasks.md", place)
    records = [json.loads(file.read_text(encoding="utf-8")) for file in place.glob("runs/*/foretune.json")]
    names = {record["task"]["name"]: record["baselines"] for record in records}
    trained = {name for name, task in tasks().items() if default_is_bundled(name) and task.modality == "text"}
    assert trained <= names.keys()  # every task whose backbone is there
    for page in TASK_PAGES:
        found = sections_of(page)
        for name, baselines in names.items():
            assert [each for each in baselines if f"`{each}`" not in found[name]] == []


def make_commands(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"make {target}: {done.stderr}"
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def demo_command():
    (command,) = [line for line in make_commands("demo") if re.match(r"\S*foretune fit", line)]
    return shlex.split(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    for block in blocks_of(document, "bash"):
        for line in block.lines:
            if line.startswith("make "):
                assert make_commands(line.split()[1])


def test_make_demo_is_the_readmes_first_fit():
    lines = [line for block in blocks_of("README.md", "bash") for line in block.lines]
    fits = [shlex.split(line) for line in lines if line.startswith("foretune fit")]
    (fit,) = [words for words in fits if "--plan" not in words]
    assert demo_command()[1:-1] == fit[1:-1]  # but for the folder


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_make_demo_runs(place):
    run(["foretune", *demo_command()[1:]], place)
    assert (place / "runs/demo/foretune.json").exists()


# --- pairs of documents ------------------------------------------------------------------------------


def without_words(block):
    """What a block does: Python without comments and docstrings, shell without comments."""
    if block.language != "python":
        return "\n".join(block.lines)
    tree = ast.parse(block.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("pair", PAIRS, ids=["README", "guide", "tasks"])
def test_both_languages_hold_the_same_code(pair):
    english, chinese = (blocks_of(document, "bash", "python", "toml", "text") for document in pair)
    assert [(b.language, b.reason, without_words(b)) for b in english] == [
        (b.language, b.reason, without_words(b)) for b in chinese
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_few_blocks_are_not_run(document):
    assert sum(block.reason is not None for block in blocks_of(document, "bash", "python")) <= NOT_RUN
    assert text_of(document).count("<!-- not run") == sum(
        b.reason is not None for b in blocks_of(document, "bash", "python")
    )
    assert {block.language for block in blocks_of(document, "sh", "shell", "console", "py", "pycon")} == set()


# --- what they name exists ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options():
    """Command -> its options, as `foretune COMMAND --help` lists them."""
    import typer

    from foretune.cli import app

    commands = typer.main.get_command(app).commands
    return {name: {o for p in c.params for o in p.opts if o.startswith("-")} for name, c in commands.items()}


def written_options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))


@pytest.mark.parametrize("document", PAGES)
def test_options_in_the_text_exist(document, options):
    known = set().union(*options.values()) | {"--version"} | FOREIGN
    assert written_options(text_of(document)) - known == set()
    commands = set(re.findall(r"(?:^|[`|] ?)foretune ([a-z]+)", text_of(document), re.M))
    assert commands - options.keys() == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_of_commands_exist(document, options):
    lines = [line for block in blocks_of(document, "bash", "text") for line in block.lines]
    lines = [line for line in lines if not line.startswith("Error")]
    calls = [re.search(r"foretune ([a-z]+)([^|>]*)", line) for line in lines if "foretune " in line]
    assert calls
    for call in filter(None, calls):
        assert written_options(call[2]) - options[call[1]] == set(), call[0]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_names_every_option_of_fit(guide, options):
    assert {o for o in options["fit"] if o.startswith("--")} - written_options(text_of(guide)) == set()


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", PAGES)
def test_relative_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(document))
    for link in (link for link in links if not re.match(r"[a-z]+:", link)):
        name, _, anchor = link.partition("#")
        page = (ROOT / document).parent / name if name else ROOT / document
        assert page.exists(), link
        assert not anchor or anchor in anchors(page), link


@pytest.mark.parametrize("guide", GUIDES)
def test_recipes_are_accepted(guide):
    from foretune import Recipe

    recipes = blocks_of(guide, "toml")
    assert recipes
    for block in recipes:
        assert re.match(r"# \w+\.toml\n", block.code)
        Recipe.from_toml(block.code)


@pytest.mark.parametrize("guide", GUIDES)
def test_defaults_are_those_of_the_strategies(guide):
    from foretune.api import import_strategies
    from foretune.strategies.base import STRATEGIES, Workload

    import_strategies()
    lines = text_of(guide).splitlines()
    (head,) = [line for line in lines if "| `full` | `linear-probe` |" in line]
    order = re.findall(r"`([\w-]+)`", head)
    assert sorted(order) == list(STRATEGIES)
    chosen = {name: STRATEGIES[name]() for name in order}
    cells = [re.split(r" *\| *", line)[2:-1] for line in lines if line.startswith("| `--epochs`")]
    sizes = [Workload(n, 20 * n, 2) for n in (19_999, 20_000)]
    assert [[float(c) for c in row] for row in cells] == [
        [chosen[name].defaults(s).epochs for name in order] for s in sizes
    ]
    small, large = Workload(10, 100, 2), Workload(10**6, 10**9, 2)
    for name in order:  # what the cells beside full's say in words
        if name not in ("linear-probe", "zero-shot"):
            for size in (small, large):
                assert chosen[name].defaults(size).batch_tokens == chosen["full"].defaults(size).batch_tokens
    rates = {"lp-ft": 1, "gradual-unfreezing": 1, "top-layers": 2, "lora": 5}
    for name, factor in rates.items():
        assert chosen[name].defaults(small).lr == pytest.approx(factor * chosen["full"].defaults(small).lr)
    wanted = {
        "`--batch-tokens`": [
            chosen["full"].defaults(small).batch_tokens,
            chosen["full"].defaults(large).batch_tokens,
            chosen["linear-probe"].defaults(small).batch_tokens,
        ],
        "`--layer-decay`": [chosen[name].defaults(small).layer_decay for name in order],
    }
    for name, values in wanted.items():
        (row,) = [line for line in lines if line.startswith(f"| {name} |")]
        assert [float(number.replace(",", "")) for number in re.findall(r"\d[\d,.]*", row)] == values


# --- tasks -------------------------------------------------------------------------------------------


def tasks():
    from foretune.tasks import import_tasks
    from foretune.tasks.base import TASKS

    import_tasks()
    return {name: TASKS[name] for name in TASKS}


def default_is_bundled(name):
    from foretune.tasks.catalogue import TASK_INFO, TEXT

    return TASK_INFO[name].backbone == TEXT


def sections_of(page):
    """The sections of a page by the first word of their headings."""
    parts = re.split(r"^## (.+)$", text_of(page), flags=re.M)
    return {heading.split()[0]: text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("page", TASK_PAGES)
def test_every_task_has_its_section(page):
    from foretune.tasks.catalogue import TASK_INFO

    found, known = sections_of(page), tasks()
    assert [*found][:-1] == re.findall(r"^\| \[([a-z-]+)\]", text_of(page), re.M)  # the last is on Python
    assert known.keys() <= found.keys() and TASK_INFO.keys() <= found.keys()
    assert found.keys() - known.keys() - {[*found][-1]} == set()
    for name, task in known.items():
        words = {task.headline, *task.option_names()}
        assert sorted(word for word in words if f"`{word}`" not in found[name]) == [], name


@pytest.mark.parametrize("page", TASK_PAGES)
def test_every_metric_of_a_task_is_in_the_table(page):
    rows = {row.split("](")[0][3:]: row for row in text_of(page).splitlines() if row.startswith("| [")}
    referring = {"image-classification", "audio-classification", "text-pair"}  # to text-classification
    for name, task in tasks().items():
        assert re.search(r"`(\w+)`", rows[name])[1] == task.default_metric
        metrics = [] if name in referring else task.metrics
        assert [metric for metric in metrics if f"`{metric}`" not in rows[name]] == []


# --- messages ----------------------------------------------------------------------------------------

FAULTY = {
    "gbk.csv": "text,label\n早上好,a\n".encode("gb18030"),
    "ragged.csv": b"text,label\nhello, world,a\nfine,b\n",
    "semi.csv": b"text;label\nhello;a\nfine;b\n",
    "blank.csv": b"text,label\nhello there,a\nfine day,b\n ,b\n",
    "one.csv": b"text,label\nhello there,a\nfine day,a\n",
    "id.csv": b"text,id\n" + b"".join(b"some text number %d,%d\n" % (n, n) for n in range(40)),
}


def message_of(name):
    from foretune.errors import DataError
    from foretune.prepare import prepare
    from foretune.recipe import Recipe

    with pytest.raises(DataError) as caught:
        prepare(name, None, None, Recipe())
    return f"Error: {caught.value}"


@pytest.mark.parametrize("guide", GUIDES)
def test_quoted_errors_are_the_real_ones(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in FAULTY.items():
        Path(name).write_bytes(content)
    quoted = [
        line
        for block in blocks_of(guide, "text")
        for line in block.code.splitlines()
        if line.startswith("Error")
    ]
    assert quoted == [message_of(name) for name in FAULTY]


def literals(path):
    """The string constants of a source file, implicit concatenations joined, f-strings' values as {}."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("guide", GUIDES)
def test_messages_of_the_troubleshooting_table_exist(guide):
    source = "\n".join(text for path in (ROOT / "src").rglob("*.py") for text in literals(path))
    source = source.replace("{} holds no {}", "{} holds no foretune.json")
    quoted = re.findall(r"^\| `([^`]+)` \|", text_of(guide).split("## 18.")[-1].split("## 19.")[0], re.M)
    assert len(quoted) > 10
    assert [message for message in quoted if message not in source] == []


@pytest.mark.parametrize("guide", GUIDES)
def test_environment_variables_and_exit_codes_are_listed(guide):
    from foretune import cli_guard, errors

    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r"\"(FORETUNE_[A-Z_]+|OMP_NUM_THREADS|MLFLOW_TRACKING_URI)\"", source))
    assert {"FORETUNE_CACHE", "FORETUNE_DEBUG", "OMP_NUM_THREADS"} <= used
    rows = set(re.findall(r"^\| `?([A-Z_]{5,}|\d+)`? \|", text_of(guide), re.M))
    assert used <= rows
    family = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.ForetuneError)]
    assert {"0", str(cli_guard.UNEXPECTED)} | {str(e.exit_code) for e in family} <= rows
