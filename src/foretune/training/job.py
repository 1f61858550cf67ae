"""Everything the loop needs, made once before step 1."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretune.backbones.base import Backbone
    from foretune.data.store import Store
    from foretune.recipe import Recipe
    from foretune.strategies.base import Settings, Strategy
    from foretune.tasks.base import Encoded, Examples, Task
    from foretune.training.events import Events
    from foretune.training.inference import Runtime


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prepared run: model, task, strategy, tokenised data, and where it writes."""

    backbone: Backbone
    task: Task
    strategy: Strategy
    settings: Settings
    recipe: Recipe
    train: Examples
    train_set: Encoded
    dev: Examples | None
    dev_set: Encoded | None
    metric: str
    folder: Path
    identity: str  # hash of data, weights and recipe: a checkpoint of another run is refused
    events: Events
    runtime: Runtime
    events_file: Path | None = None
    began: float = field(default_factory=time.perf_counter)  # when the fit did, planning left out
    deadline: float | None = None  # on the clock of time.perf_counter: everything must be done by then
    closing: float = 0.0  # seconds that evaluation, baselines and saving take after training
    tuned: dict[str, Any] = field(default_factory=dict)  # settings of learning that the user chose

    @property
    def train_store(self) -> Store:
        """Return the training examples as the model reads them."""
        return self.train_set.store

    @property
    def dev_store(self) -> Store | None:
        """Return the dev examples as the model reads them."""
        return None if self.dev_set is None else self.dev_set.store

    @property
    def checkpoints_folder(self) -> Path:
        """Return where the checkpoints of this run lie."""
        return self.folder / "checkpoints"
