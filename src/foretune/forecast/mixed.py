"""A linear mixed model: a few shrunken slopes and random offsets, fitted by marginal likelihood.

Everything is a Gaussian process whose kernel is a sum of blocks: `s_h^2 K_h`, K_h = 1 where two rows share a level
(a random offset) or the product of their covariates (a slope). Its mean is the best linear predictor and its
variance says how much is known (Henderson 1975; Rasmussen & Williams 2006, ch. 2 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """One part of the kernel: rows of the same level in all of `by` share offsets, or slopes on `slopes`.

    `spread` is the standard deviation expected before any data (a log-normal prior of `doubt` natural
    logarithms, which keeps a variance sensible where few data speak); `doubt` 0 fixes it.
    """

    name: str
    spread: float
    by: tuple[str, ...] = ()
    slopes: tuple[str, ...] = ()
    doubt: float = 1.0


@dataclass(frozen=True)
class Rows:
    """What the kernel sees: numbers (n,) and levels (n,) by name; "" is a level never seen before."""

    numbers: dict[str, Floats]
    levels: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.levels.values())))

    def take(self, rows: NDArray[Any]) -> Rows:
        """Return some of the rows."""
        return Rows(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.levels.items()},
        )


def block_kernel(block: Block, a: Rows, b: Rows) -> Floats:
    """Return a block's kernel without its variance: (n of a, n of b)."""
    kernel = np.ones((len(a), len(b)))
    for name in block.by:
        left, right = a.levels[name][:, None], b.levels[name][None]
        kernel *= (left == right) & (left != "")
    if block.slopes:
        kernel *= sum(np.outer(a.numbers[name], b.numbers[name]) for name in block.slopes)
    return kernel


def block_variance(block: Block, rows: Rows) -> Floats:
    """Return the diagonal of a block's kernel (n,), where a level never seen counts as equal to itself."""
    if not block.slopes:
        return np.ones(len(rows))
    return np.sum([rows.numbers[name] ** 2 for name in block.slopes], axis=0)


@dataclass(frozen=True)
class MixedModel:
    """A fitted model: `predict` gives mean and variance of new rows, `only` the model on fewer rows."""

    blocks: tuple[Block, ...]
    spreads: Floats  # (blocks + 1,): of every block, then of the residual
    rows: Rows
    targets: Floats  # (n,)
    noise: Floats  # (n,) known variance of every target, on top of the residual's
    covariance: Floats = field(repr=False)  # (n, n) of the targets, noise and residual included
    _solved: tuple[Floats, Floats] = field(repr=False)  # its inverse (n, n), and that times the targets (n,)

    @property
    def residual(self) -> float:
        """Return the residual's standard deviation."""
        return float(self.spreads[-1])

    def predict(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return the mean (m,) and variance (m,) of new rows, without residual and known noise."""
        inverse, weights = self._solved
        cross = sum(
            s**2 * block_kernel(b, rows, self.rows) for b, s in zip(self.blocks, self.spreads, strict=False)
        )
        prior = sum(s**2 * block_variance(b, rows) for b, s in zip(self.blocks, self.spreads, strict=False))
        cross = np.asarray(cross).reshape(len(rows), len(self.targets))
        variance = prior - ((cross @ inverse) * cross).sum(axis=1)
        return cross @ weights, np.maximum(variance, 1e-12)

    def part(self, name: str, rows: Rows) -> Floats:
        """Return what the blocks of that name add to the mean of new rows (m,)."""
        places = [i for i, block in enumerate(self.blocks) if block.name == name]
        kernels = [self.spreads[i] ** 2 * block_kernel(self.blocks[i], rows, self.rows) for i in places]
        return np.sum(kernels, axis=0) @ self._solved[1] if kernels else np.zeros(len(rows))

    def only(self, keep: NDArray[Any]) -> MixedModel:
        """Return the model on some of its rows, with the same spreads."""
        targets, covariance = self.targets[keep], self.covariance[np.ix_(keep, keep)]
        return replace(
            self, rows=self.rows.take(keep), targets=targets, noise=self.noise[keep],
            covariance=covariance, _solved=_solve(covariance, targets),
        )  # fmt: skip


def fit_mixed(
    blocks: Sequence[Block], rows: Rows, targets: Floats, noise: Floats, residual: float = 0.15
) -> MixedModel:
    """Return the model with the spreads that maximise marginal likelihood times prior (MAP)."""
    from scipy.optimize import minimize

    kernels = _kernels(blocks, rows)
    start = np.log([block.spread for block in blocks] + [residual])
    doubts = np.array([block.doubt for block in blocks] + [1.0])
    free = np.flatnonzero(doubts)

    def loss(moved: Floats) -> tuple[float, Floats]:
        logs = start.copy()
        logs[free] += moved
        value, slope = _evidence(kernels, np.exp(logs), targets, noise)
        prior = moved / doubts[free]
        return -value + 0.5 * float(prior @ prior), -slope[free] + prior / doubts[free]

    spreads = np.exp(start)
    if len(targets):
        bounds = [(-4.0, 3.0)] * len(free)
        found = minimize(loss, np.zeros(len(free)), jac=True, bounds=bounds, method="L-BFGS-B")
        spreads[free] *= np.exp(found.x)
    return with_spreads(blocks, spreads, rows, targets, noise)


def with_spreads(
    blocks: Sequence[Block], spreads: Floats, rows: Rows, targets: Floats, noise: Floats
) -> MixedModel:
    """Return the model with given spreads: of every block, then of the residual (blocks + 1,)."""
    covariance = _covariance(_kernels(blocks, rows), spreads, noise)
    solved = _solve(covariance, targets)
    return MixedModel(tuple(blocks), spreads, rows, targets, noise, covariance, solved)


def _kernels(blocks: Sequence[Block], rows: Rows) -> Floats:
    return np.stack([block_kernel(block, rows, rows) for block in blocks])


def _covariance(kernels: Floats, spreads: Floats, noise: Floats) -> Floats:
    return np.tensordot(spreads[:-1] ** 2, kernels, axes=1) + np.diag(noise + spreads[-1] ** 2)


def _solve(covariance: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the inverse (n, n) of a covariance, and that times the targets (n,)."""
    from scipy.linalg import cho_factor, cho_solve

    if not len(targets):
        return np.zeros((0, 0)), np.zeros(0)
    inverse = cho_solve(cho_factor(covariance, lower=True), np.eye(len(targets)))
    return inverse, inverse @ targets


def _evidence(kernels: Floats, spreads: Floats, targets: Floats, noise: Floats) -> tuple[float, Floats]:
    """Return the log marginal likelihood and its gradient by log spread (Rasmussen & Williams, eq. 5.8 and 5.9)."""
    covariance = _covariance(kernels, spreads, noise)
    inverse, weights = _solve(covariance, targets)
    value = -0.5 * (targets @ weights + np.linalg.slogdet(2 * np.pi * covariance)[1])
    inner = np.outer(weights, weights) - inverse
    slopes = np.tensordot(kernels, inner, axes=2)
    return float(value), spreads**2 * np.append(slopes, np.trace(inner))
