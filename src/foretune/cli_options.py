"""The arguments and options of the command line, each described once.

An option that is not given is None, so that it never overrides an entry of the recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_DATA, _MODEL, _TRAINING, _RUN = "Data", "Model", "Training", "Run"


def _option(panel: str, *names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel, show_default=False)


_TABLE = "csv, tsv, jsonl, json, parquet (each also .gz) or a dataset id of the hub"

Train = Annotated[str, typer.Argument(metavar="TRAIN", help=f"Labelled data: {_TABLE}.", show_default=False)]
Data = Annotated[str, typer.Argument(metavar="DATA", help=f"Labelled data: {_TABLE}.", show_default=False)]
Texts = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A table, a file with one text per line, or - for standard input.",
        show_default=False,
    ),
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL_DIR", help="The --output of a finished `foretune fit`.", show_default=False
    ),
]

Dev = Annotated[
    str | None, _option(_DATA, "--dev", metavar="FILE", help="Data that choose the best weights.")
]
Test = Annotated[str | None, _option(_DATA, "--test", metavar="FILE", help="Data for the final score alone.")]
Task = Annotated[
    str | None,
    _option(
        _DATA, "--task", metavar="NAME", help="What is learnt; guessed from the data: see `foretune models`."
    ),
]
Text = Annotated[
    str | None,
    _option(
        _DATA, "--text", metavar="COLUMN", help="Column of the texts (or of the paths of pictures or sounds)."
    ),
]
Second = Annotated[
    str | None, _option(_DATA, "--second", metavar="COLUMN", help="Column of the other text of a pair.")
]
Target = Annotated[
    str | None,
    _option(
        _DATA, "--target", metavar="COLUMN", help="Column of the labels; several of 0 and 1 with commas."
    ),
]
Separator = Annotated[
    str | None,
    _option(
        _DATA, "--separator", metavar="CHARACTER", help="Between the cells of a csv (default: by its name)."
    ),
]
DevFraction = Annotated[
    float | None,
    _option(
        _DATA, "--dev-fraction", metavar="X", help="Share of TRAIN held out where no --dev is given (0.1)."
    ),
]
TestFraction = Annotated[
    float | None,
    _option(
        _DATA, "--test-fraction", metavar="X", help="Share of TRAIN held out without --dev and --test (0.1)."
    ),
]
Rows = Annotated[
    int | None,
    _option(
        _DATA, "--rows", metavar="N", help="Train on N rows drawn of TRAIN, classes in their shares (all)."
    ),
]

HeldOutRows = Annotated[
    int | None,
    _option(
        _DATA,
        "--held-out-rows",
        metavar="N",
        help="Hold out at most N rows for dev and for test each (as the shares say; under a budget by its length).",
    ),
]

Backbone = Annotated[
    str | None,
    _option(
        _MODEL,
        "--backbone",
        metavar="NAME",
        help="A name of `foretune models`, a folder or a hub id (minilm-l6).",
    ),
]
Strategy = Annotated[
    str | None,
    _option(_MODEL, "--strategy", metavar="NAME", help="What trains: see `foretune models` (full)."),
]
TrainableLayers = Annotated[
    int | None,
    _option(_MODEL, "--trainable-layers", metavar="N", help="Train the top N layers (implies top-layers)."),
]
StrategyOption = Annotated[
    list[str] | None,
    _option(
        _MODEL,
        "--option",
        metavar="KEY=VALUE",
        help="An option of the strategy or the task; may be repeated.",
    ),
]
MaxTokens = Annotated[
    int | None,
    _option(_MODEL, "--max-tokens", metavar="N", help="Longer texts are cut (512, or the backbone's limit)."),
]
Truncation = Annotated[
    str | None, _option(_MODEL, "--truncation", metavar="SIDE", help="Keep head, tail or head+tail (head).")
]

Epochs = Annotated[float | None, _option(_TRAINING, "--epochs", metavar="X", help="Passes over the data.")]
LearningRate = Annotated[
    float | None, _option(_TRAINING, "--lr", metavar="X", help="Peak learning rate of the head.")
]
LayerDecay = Annotated[
    float | None,
    _option(
        _TRAINING, "--layer-decay", metavar="X", help="Factor of the rate from each layer to the one below."
    ),
]
Dropout = Annotated[
    float | None, _option(_TRAINING, "--dropout", metavar="X", help="In backbone and head (0).")
]
ClassWeights = Annotated[
    str | None,
    _option(
        _TRAINING,
        "--class-weights",
        metavar="WHICH",
        help="none, auto (by frequency) or a file: json, toml or csv.",
    ),
]
BatchTokens = Annotated[
    int | None, _option(_TRAINING, "--batch-tokens", metavar="N", help="Tokens per optimizer step.")
]
MicroTokens = Annotated[
    int | None,
    _option(
        _TRAINING, "--micro-tokens", metavar="N", help="Tokens per forward pass; fewer need less memory."
    ),
]
Metric = Annotated[
    str | None,
    _option(
        _TRAINING, "--metric", metavar="NAME", help="Chooses the best weights, such as accuracy, macro_f1."
    ),
]
Patience = Annotated[
    int | None,
    _option(
        _TRAINING,
        "--patience",
        metavar="N",
        help="Stop after N evaluations without gain; 0: never (3; a probe: 0).",
    ),
]
Seed = Annotated[int | None, _option(_TRAINING, "--seed", metavar="N", help="Of split, head and order (0).")]

Output = Annotated[
    Path | None, _option(_RUN, "--output", "-o", metavar="FOLDER", help="Where the model goes (runs/...).")
]
Resume = Annotated[bool, _option(_RUN, "--resume", metavar="", help="Go on with a run stopped in --output.")]
RecipeFile = Annotated[
    Path | None,
    _option(_RUN, "--recipe", metavar="FILE", help="TOML with these choices; given options come before it."),
]
CheckpointSeconds = Annotated[
    float | None,
    _option(_RUN, "--checkpoint-seconds", metavar="X", help="Between two checkpoints (60)."),
]
Track = Annotated[
    list[str] | None, _option(_RUN, "--track", metavar="NAME", help="tensorboard or mlflow; may be repeated.")
]
Precision = Annotated[
    str | None, _option(_RUN, "--precision", metavar="NAME", help="auto, fp32 or bf16 (auto: the faster).")
]
Device = Annotated[
    str | None, _option(_RUN, "--device", metavar="NAME", help="auto, cpu, cuda or mps (auto).")
]
Budget = Annotated[
    str | None,
    _option(_RUN, "--budget", metavar="TIME", help="Wall-clock for everything, such as 10m; plans first."),
]
PlanFile = Annotated[
    Path | None,
    _option(
        _MODEL,
        "--plan",
        metavar="FILE",
        help="Take backbone and strategy from `foretune plan --output FILE`.",
    ),
]
Backbones = Annotated[
    str,
    _option(_MODEL, "--backbones", metavar="LIST", help="Names with commas, or auto: those on this machine."),
]
Strategies = Annotated[
    str, _option(_MODEL, "--strategies", metavar="LIST", help="Names with commas, or auto: all.")
]
MemoryLimit = Annotated[
    str | None, _option(_RUN, "--memory", metavar="SIZE", help="Leave out what needs more, such as 8GB.")
]
Goal = Annotated[
    str,
    _option(_MODEL, "--goal", metavar="NAME", help="accuracy, speed or size: what comes first (accuracy)."),
]
Pilots = Annotated[
    int,
    _option(
        _MODEL, "--pilots", metavar="N", help="Try up to N leading candidates on a few hundred rows (0)."
    ),
]
TargetScore = Annotated[
    float | None,
    _option(_MODEL, "--target-score", metavar="X", help="Say how many labels this score needs, such as 0.9."),
]
PlanOutput = Annotated[
    Path | None,
    _option(_RUN, "--output", "-o", metavar="FILE", help="Write the plan as JSON for fit --plan."),
]
Cache = Annotated[
    str | None,
    _option(_RUN, "--cache", metavar="NAME", help="Keep what frozen layers give: bf16, fp32 or off (bf16)."),
]
SkipBroken = Annotated[
    bool,
    _option(
        _DATA,
        "--skip-broken",
        metavar="",
        help="Leave out pictures and sounds that are missing or cannot be read.",
    ),
]
Offline = Annotated[bool, _option(_RUN, "--offline", metavar="", help="Never use the network.")]
PredictionFile = Annotated[
    Path | None,
    _option(
        _RUN,
        "--output",
        "-o",
        metavar="FILE",
        help=".jsonl, or the table with predictions: .csv, .tsv, .parquet. Of masks a folder.",
    ),
]
Json = Annotated[
    bool, _option(_RUN, "--json", metavar="", help="Print one JSON object as the last line of stdout.")
]
Quiet = Annotated[
    bool, _option(_RUN, "--quiet", "-q", metavar="", help="No progress; results, warnings and errors only.")
]
