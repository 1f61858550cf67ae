"""The frozen-prefix cache: what the frozen layers give is computed once and read from the disk after that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.backbones import feature_store
from foretune.backbones.feature_store import FeatureStore, FeatureWriter, Layout, NoRoom, store_key
from foretune.training.feed import HEAD, Feed, HeadFeed, HiddenFeed, TokenFeed
from foretune.training.inference import batch_on, run_all

if TYPE_CHECKING:
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.data.store import Store
    from foretune.strategies.base import Phase
    from foretune.training.inference import Runtime

WORTH = 1.5  # epochs from a frozen prefix that pay for computing it once, and for writing it
MEANS = -2  # the "point" of every layer's mean over the tokens, for forecasts


def start_of(phase: Phase, backbone: Backbone, trained_before: set[str]) -> int:
    """Return where a phase can start: HEAD, the number k of layers that stay frozen, or 0.

    0 too where an earlier phase trained a part of the prefix, which then depends on the run.
    """
    count, lowest = backbone.layers.count, _lowest(phase, backbone)
    if _trains_below(lowest, backbone, trained_before):
        return 0
    if lowest > count and backbone.linear:
        return HEAD
    allowed = [k for k in backbone.split_points() if k < lowest]
    return max(allowed, default=0)


def starts(phases: Sequence[Phase], backbone: Backbone) -> list[int]:
    """Return where each phase can start."""
    before = _trained_before(phases)
    return [start_of(phase, backbone, trained) for phase, trained in zip(phases, before, strict=True)]


def unsplit(phases: Sequence[Phase], backbone: Backbone, found: Sequence[int]) -> str | None:
    """Return a sentence where a phase has frozen layers that the model cannot be split behind, else None.

    `found`: where each phase can start. Frozen embeddings alone, and a prefix that trained before, do not count.
    """
    stuck = [
        lowest
        for phase, start, trained in zip(phases, found, _trained_before(phases), strict=True)
        for lowest in [_lowest(phase, backbone)]
        if start == 0 and lowest > 1 and not _trains_below(lowest, backbone, trained)
    ]
    if not stuck:
        return None
    border = f"layer {max(stuck)}" if max(stuck) <= backbone.layers.count else "its head"
    return (
        f"{backbone.name} cannot be split below {border}: its frozen layers run in every step; "
        "what they give is not cached."
    )


def _lowest(phase: Phase, backbone: Backbone) -> int:
    """Return the depth of the lowest layer that a phase trains."""
    depth = backbone.layers.depth
    return min(depth[name] for group in phase.groups for name in group.names)


def _trains_below(lowest: int, backbone: Backbone, trained: set[str]) -> bool:
    """Say whether some of the `trained` parameters lie below a layer."""
    return any(backbone.layers.depth[name] < lowest for name in trained)


def _trained_before(phases: Sequence[Phase]) -> list[set[str]]:
    """Return the parameters that trained before each phase."""
    found: list[set[str]] = [set()]
    for phase in phases:
        found.append(found[-1] | {name for group in phase.groups for name in group.names})
    return found[:-1]


@dataclass(frozen=True)
class Prefix:
    """The frozen layers' output over the examples of one store, by split point."""

    backbone: Backbone
    store: Store
    runtime: Runtime
    dtype: str  # "bf16" or "fp32"

    def whole(self) -> Feed:
        """Return the feed that runs the whole model."""
        return TokenFeed(self.backbone, self.store, self.runtime)

    def _feed(self, start: int, features: FeatureStore) -> Feed:
        if start == HEAD:
            return HeadFeed(self.backbone, self.runtime, features)
        return HiddenFeed(self.backbone, self.store, self.runtime, features, start)

    def key(self, point: int) -> str:
        """Return the cache key: weights, split point, tokens, number formats."""
        return store_key(
            backbone=self.backbone.state_key(),
            point=point,
            tokens=self.store.key(),
            compute=self.runtime.precision,
            dtype=self.dtype,
        )

    def compute(self, points: Sequence[int]) -> tuple[dict[int, Feed], list[int]]:
        """Return feeds from several split points, and which of them were not cached before.

        The frozen layers run once over all examples for all points together. A point for which there is no room
        is left out.
        """
        stores = self.stores(points)
        computed = [point for point, (_, new) in stores.items() if new]
        return {point: self._feed(point, store) for point, (store, _) in stores.items()}, computed

    def stores(self, points: Sequence[int]) -> dict[int, tuple[FeatureStore, bool]]:
        """Return the feature store of every point, and whether it had to be computed."""
        found = {point: feature_store.load(self.key(point)) for point in points}
        stores = {point: (store, False) for point, store in found.items() if store is not None}
        missing = [point for point in points if point not in stores]
        return stores | {point: (store, True) for point, store in self._run(missing).items()}

    def _run(self, points: list[int]) -> dict[int, FeatureStore]:
        """Compute the stores of `points`; those for which the room ends on the way are left out."""
        writers: dict[int, FeatureWriter] | None = None
        if not points:
            return {}
        try:
            for rows, outputs in run_all(
                self.backbone,
                self.store,
                self.runtime,
                lambda rows: self._outputs(rows, points),
            ):
                if writers is None:
                    writers = self._writers(points, outputs)
                for point, writer in list(writers.items()):
                    try:
                        writer.write(rows, outputs[point])
                    except NoRoom:
                        del writers[point]
                if not writers:
                    return {}
            return _finished(writers or {})
        except BaseException:
            for writer in (writers or {}).values():
                writer.abandon()
            raise

    def _outputs(self, rows: np.ndarray, points: list[int]) -> dict[int, Tensor]:
        """Return the unpadded outputs, (sum of lengths, hidden), of every point for the examples `rows`."""
        batch = batch_on(self.backbone, self.store, rows, self.runtime)
        outputs: dict[int, Tensor] = {}
        if HEAD in points:
            features = self.backbone.features(batch)
            if features is not None:
                outputs[HEAD] = features
        if MEANS in points:
            outputs[MEANS] = self.backbone.layer_means(batch)
        inner = [point for point in points if point > 0]
        if inner:
            mask = _mask(_states(self.store)[rows])
            for point, hidden in zip(inner, self.backbone.hidden(batch, inner), strict=True):
                outputs[point] = hidden[mask.to(hidden.device)]
        return outputs

    def _writers(self, points: list[int], outputs: dict[int, Tensor]) -> dict[int, FeatureWriter]:
        writers: dict[int, FeatureWriter] = {}
        for point in points:
            if point not in outputs:
                continue
            lengths = _states(self.store) if point > 0 else np.ones(len(self.store), dtype=np.int64)
            dtype = self.dtype if point > 0 else "fp32"  # one vector an example is small
            layout = Layout(lengths, tuple(outputs[point].shape[1:]), dtype)
            try:
                writers[point] = feature_store.create(self.key(point), layout)
            except NoRoom:
                continue
        return writers


def _finished(writers: dict[int, FeatureWriter]) -> dict[int, FeatureStore]:
    """Finish every writer for which there is room."""
    stores = {}
    for point, writer in writers.items():
        try:
            stores[point] = writer.finish()
        except NoRoom:
            continue
    return stores


def _states(store: Store) -> np.ndarray:
    """Return how many states the frozen layers give for every row, (n,): one per token, but of sources alone."""
    return np.asarray(getattr(store, "states", store.lengths))


def _mask(lengths: np.ndarray) -> Tensor:
    """Return which places of a right-padded batch hold tokens: (batch, longest)."""
    import torch

    return torch.from_numpy(np.arange(int(lengths.max())) < lengths[:, None])
