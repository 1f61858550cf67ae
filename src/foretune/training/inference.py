"""Run a model over examples in batches of near-equal length; outputs leave the device batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ResourceError
from foretune.training.batching import cut_by_budget, order_by_length

if TYPE_CHECKING:
    import torch

    from foretune.backbones.base import Backbone
    from foretune.data.store import RaggedStore
    from foretune.tasks.base import Task

TOKENS = 4096  # of one forward pass without gradients, padding included


@dataclass(frozen=True)
class Runtime:
    """Where and how a model runs."""

    device: torch.device
    precision: str  # "fp32" or "bf16"

    def autocast(self) -> Any:
        """Return the context in which the model's forward pass runs."""
        import torch

        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on the device or in the machine."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def predict(
    backbone: Backbone, task: Task, store: RaggedStore, runtime: Runtime, budget: int = TOKENS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, activated outputs) for every example once, short ones first.

    rows: (batch,) positions in `store`; outputs: (batch, …) float32. When memory runs out, the batch is
    halved and the rest goes on with smaller ones. Raises ResourceError where one example is too much.
    """
    import torch

    was_training = backbone.model.training
    backbone.model.eval()
    order = order_by_length(store.lengths)
    lengths = store.lengths[order]
    try:
        position = 0
        while position < len(order):
            stop = _next_stop(lengths[position:], budget) + position
            rows = order[position:stop]
            try:
                outputs = _forward(backbone, task, store, rows, runtime)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise ResourceError(too_long(int(lengths[position]))) from error
                budget = max(min(budget, int(lengths[stop - 1]) * len(rows)) // 2, 1)
                if runtime.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            yield rows, outputs
            position = stop
    finally:
        backbone.model.train(was_training)


def too_long(tokens: int) -> str:
    """Say that memory does not suffice for a single text."""
    return (
        f"Out of memory with a single text of {tokens} tokens. Lower --max-tokens, choose a smaller --backbone, "
        "or --strategy linear-probe."
    )


def _next_stop(lengths: np.ndarray, budget: int) -> int:
    window = lengths[: max(budget // max(int(lengths[0]), 1), 1) + 1]
    return cut_by_budget(window, budget)[0][1]


def _forward(backbone: Backbone, task: Task, store: RaggedStore, rows: np.ndarray, runtime: Runtime) -> np.ndarray:
    import torch

    batch = {k: v.to(runtime.device) for k, v in backbone.collate(store, rows).items()}
    with torch.inference_mode(), runtime.autocast():
        outputs = task.activate(backbone.forward(batch))
    return outputs.float().cpu().numpy()
