"""Run a model over examples in batches of near-equal length; outputs leave the device batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from foretune.errors import ResourceError
from foretune.training.batching import cut_by_budget, order_by_length

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.data.store import Store
    from foretune.tasks.base import Task
    from foretune.training.feed import Feed

T = TypeVar("T")
# Tokens of one forward pass without gradients, padding included; on a CPU what fits the caches of a core.
TOKENS = {"cpu": 1024}
TOKENS_ELSE = 4096


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


def pass_budget(backbone: Backbone, runtime: Runtime) -> int:
    """Return what the lengths of one pass without gradients add up to at most, padding included."""
    return min(TOKENS.get(runtime.device.type, TOKENS_ELSE), backbone.pass_limit)


def predict(
    backbone: Backbone,
    task: Task,
    store: Store,
    runtime: Runtime,
    budget: int | None = None,
    feed: Feed | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, activated outputs) for every example once, long ones first.

    rows: (batch,) positions in `store`; outputs: (batch, …) float32. `feed`, where given, starts behind what is
    cached for `store`. When memory runs out, the batch is halved and the rest goes on with smaller ones. Raises
    ResourceError where one example is too much.
    """

    def run(rows: np.ndarray) -> np.ndarray:
        if feed is None:
            outputs = task.infer(backbone, batch_on(backbone, store, rows, runtime))
        else:
            outputs = task.activate(*feed(rows))
        return outputs.float().cpu().numpy()

    yield from run_all(backbone, store, runtime, run, budget)


def batch_on(backbone: Backbone, store: Store, rows: np.ndarray, runtime: Runtime) -> dict[str, Tensor]:
    """Return the model's input for `rows` on the runtime's device."""
    return {name: tensor.to(runtime.device) for name, tensor in backbone.collate(store, rows).items()}


def run_all(
    backbone: Backbone,
    store: Store,
    runtime: Runtime,
    run: Callable[[np.ndarray], T],
    budget: int | None = None,
) -> Iterator[tuple[np.ndarray, T]]:
    """Yield (rows, run(rows)) for every example without gradients, by batches of near-equal length, long ones first.

    `budget`: tokens of a pass at most (None: `pass_budget`).
    """
    from foretune.backbones.split import evaluating

    order = order_by_length(store.lengths)
    lengths = store.lengths[order]
    budget = pass_budget(backbone, runtime) if budget is None else min(budget, backbone.pass_limit)
    batches = cut_by_budget(lengths, budget)
    with evaluating(backbone.model):
        while batches:
            # The longest first: those behind it fit into the memory that it frees.
            start, stop = batches.pop()
            rows = order[start:stop][::-1].copy()  # so that the order of rows does not depend on the budget
            try:
                outputs = _without_gradients(run, rows, runtime)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                longest = int(lengths[stop - 1])
                if len(rows) == 1:
                    raise ResourceError(too_long(longest)) from error
                budget = max(min(budget, longest * len(rows)) // 2, 1)
                batches = cut_by_budget(lengths[:stop], budget)
                free_memory(runtime)
                continue
            yield rows, outputs


def _without_gradients(run: Callable[[np.ndarray], T], rows: np.ndarray, runtime: Runtime) -> T:
    import torch

    with torch.inference_mode(), runtime.autocast():
        return run(rows)


def free_memory(runtime: Runtime) -> None:
    """Give cached memory of a GPU back before a smaller batch is tried."""
    import torch

    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()


def too_long(tokens: int) -> str:
    """Say that memory does not suffice for a single text."""
    return (
        f"Out of memory with a single text of {tokens} tokens. Lower --max-tokens, choose a smaller --backbone, "
        "or --strategy linear-probe."
    )
