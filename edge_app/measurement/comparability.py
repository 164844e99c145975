"""Do two runs hold the same population? KS per descriptor and MMD over all, with p-value and effect."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError

__all__ = ["DESCRIPTORS", "Comparison", "DescriptorComparison", "compare_populations"]

DESCRIPTORS: Final = (
    "ecd_um", "aspect_ratio", "circularity", "solidity", "intensity_mean", "intensity_std", "edge_gradient",
)  # fmt: skip
"""Columns of ``Particles`` compared unless others are named: size, shape and contrast."""

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DescriptorComparison:
    """One descriptor in two runs.

    Attributes
    ----------
    ks, p_value, p_adjusted
        Kolmogorov-Smirnov distance, its permutation p-value, and that after Holm's correction for the number of
        descriptors.
    ks_chance
        Distance that 5 % of all permutations exceed: smaller ones are what chance alone makes of this many particles.
    median_first, median_second
        In the descriptor's unit.
    effect
        Cliff's delta, -1 to 1: how much more often a particle of the first run is the larger one.
    """

    name: str
    ks: float
    ks_chance: float
    p_value: float
    p_adjusted: float
    median_first: float
    median_second: float
    effect: float

    @property
    def effect_name(self) -> str:
        """Size of the effect in words (Romano et al. 2006)."""
        size = abs(self.effect)
        return "negligible" if size < 0.147 else "small" if size < 0.33 else "medium" if size < 0.474 else "large"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs.

    Attributes
    ----------
    mmd_squared
        Unbiased estimate of the squared maximum mean discrepancy, RBF kernel on ranks of all descriptors; about 0 for
        one population, it may be negative.
    mmd_effect
        ``sqrt(max(0, mmd_squared) / (2 * mean kernel within the runs))``: 0 same, 1 nothing in common.
    mmd_chance
        Effect that 5 % of all permutations exceed.
    p_value
        By permutation of whole groups.
    first, second
        Particles compared.
    groups
        Whether rows were permuted in groups (frames, windows), so that repeated images do not count as new particles.
    """

    descriptors: tuple[DescriptorComparison, ...]
    mmd_squared: float
    mmd_effect: float
    mmd_chance: float
    p_value: float
    first: int
    second: int
    groups: bool
    permutations: int
    seed: int

    @property
    def largest(self) -> DescriptorComparison:
        """The descriptor with the largest effect."""
        return max(self.descriptors, key=lambda d: abs(d.effect))

    @property
    def shown(self) -> bool:
        """Whether chance alone would make a difference as large in fewer than 5 % of all permutations."""
        return self.p_value < 0.05

    @property
    def p_text(self) -> str:
        """The p-value; the least that so many permutations can show is given as a bound."""
        least = 1 / (self.permutations + 1)
        return f"p < {2 * least:.2g}" if self.p_value <= least else f"p = {self.p_value:.2g}"

    @property
    def text(self) -> str:
        """One sentence for a report: the effect first, since a p-value is not the size of a difference."""
        worst = self.largest
        size = (
            f"largest effect {worst.effect_name} ({abs(worst.effect):.2f} of 1), in {worst.name}: "
            f"median {worst.median_first:.3g} against {worst.median_second:.3g}"
        )
        over_all = f"over all descriptors {self.mmd_effect:.2f} of 1, chance makes up to {self.mmd_chance:.2f}"
        verdict = "the two populations differ" if self.shown else "the two populations are not shown to differ"
        return f"{size[0].upper()}{size[1:]}; {over_all}: {verdict} ({self.p_text})"


def compare_populations(
    first: Mapping[str, npt.NDArray[np.generic]],
    second: Mapping[str, npt.NDArray[np.generic]],
    *,
    groups: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]] | None = None,
    permutations: int = 999,
    largest_sample: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the descriptors of two runs.

    Parameters
    ----------
    first, second
        The same descriptors, each an array over the particles of the run. Choose the particles before (a class, a
        size range).
    groups
        Group of each particle in each run: frames, or windows. Rows of a group are permuted together, because images
        of the same particle are no new evidence. Without it every row counts as a particle of its own.
    permutations
        The least p-value is ``1 / (permutations + 1)``.
    largest_sample
        Rows drawn at random from each run beyond this (whole groups where there are groups).
    seed
        Of drawing and permuting.

    Raises
    ------
    UserError
        If the descriptors differ, or a run has fewer than 10 particles or, with groups, 4 groups.

    References
    ----------
    A. Gretton et al., A kernel two-sample test, Journal of Machine Learning Research 13 (2012) 723.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = ({"ecd_um": rng.gamma(4.0, scale, 300)} for scale in (2.0, 3.0))
    >>> found = compare_populations(a, b)
    >>> found.p_value, found.descriptors[0].effect_name
    (0.001, 'medium')
    """
    names = list(first)
    if not names or set(names) != set(second):
        raise UserError(f"descriptors to compare differ: {', '.join(first)} and {', '.join(second)}")
    rng = np.random.default_rng(seed)
    sides = []
    for i, run in enumerate((first, second)):
        table = np.stack([np.asarray(run[n], np.float64) for n in names], axis=1)
        group = np.arange(len(table)) if groups is None else np.asarray(groups[i], np.int64)
        finite = np.isfinite(table).all(1)
        table, group = table[finite], group[finite]
        if len(table) < 10:
            raise UserError(
                f"{'first' if i == 0 else 'second'} run has {len(table)} particles to compare, 10 are needed"
            )
        sides.append(_drawn(table, group, largest_sample, rng, grouped=groups is not None))
    (a, group_a), (b, group_b) = sides
    if groups is not None and min(group_a.max(), group_b.max()) < 3:
        raise UserError("a run has fewer than 4 groups: compare without groups or over more windows")
    both = np.concatenate([a, b])
    group = np.concatenate([group_a, group_b + group_a.max() + 1])
    in_first = np.zeros((permutations + 1, len(both)), np.bool_)
    in_first[0, : len(a)] = True
    number, boundary = int(group.max()) + 1, int(group_a.max()) + 1
    for row in range(1, permutations + 1):
        chosen = np.zeros(number, np.bool_)
        chosen[rng.permutation(number)[:boundary]] = True
        in_first[row] = chosen[group]

    ks = np.stack([_ks(both[:, j], in_first) for j in range(len(names))], axis=1)
    p = _p_values(ks)
    adjusted = _holm(p)
    ranks = np.stack([_mid_ranks(both[:, j]) for j in range(len(names))], axis=1)
    mmd, within = _mmd(ranks, in_first)
    chance = np.quantile(ks[1:], 0.95, axis=0)
    n = len(a)
    return Comparison(
        descriptors=tuple(
            DescriptorComparison(
                name=name,
                ks=float(ks[0, j]),
                ks_chance=float(chance[j]),
                p_value=float(p[j]),
                p_adjusted=float(adjusted[j]),
                median_first=float(np.median(a[:, j])),
                median_second=float(np.median(b[:, j])),
                # Mann-Whitney U from ranks in (0, 1).
                effect=float(2 * (ranks[:n, j].mean() - ranks[n:, j].mean())),
            )
            for j, name in enumerate(names)
        ),
        mmd_squared=float(mmd[0]),
        mmd_effect=float(np.sqrt(max(0.0, mmd[0]) / (2 * within))),
        mmd_chance=float(np.sqrt(max(0.0, np.quantile(mmd[1:], 0.95)) / (2 * within))),
        p_value=float(_p_values(mmd[:, None])[0]),
        first=len(a),
        second=len(b),
        groups=groups is not None,
        permutations=permutations,
        seed=seed,
    )


def _drawn(table: F8, group: I8, largest: int, rng: np.random.Generator, *, grouped: bool) -> tuple[F8, I8]:
    """At most about ``largest`` rows, whole groups, with groups numbered from 0."""
    _, group = np.unique(group, return_inverse=True)
    if len(table) > largest:
        order = rng.permutation(int(group.max()) + 1)
        sizes = np.bincount(group)[order]
        kept = order[: max(4 if grouped else 1, int(np.searchsorted(np.cumsum(sizes), largest, side="right")))]
        rows = np.isin(group, kept)
        table = table[rows]
        _, group = np.unique(group[rows], return_inverse=True)
    return table, group.astype(np.int64)


def _mid_ranks(x: F8) -> F8:
    """Ranks scaled to (0, 1), ties at their middle: robust against outliers and the same for every unit."""
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    upper = np.cumsum(count)
    return ((upper - 0.5 * count) / len(x))[inverse].astype(np.float64)


def _ks(x: F8, in_first: npt.NDArray[np.bool_]) -> F8:
    """KS distance of each labelling, shape (labellings,)."""
    order = np.argsort(x, kind="stable")
    last_of_tie = np.append(np.diff(x[order]) > 0, True)
    out = np.empty(len(in_first))
    for start in range(0, len(in_first), 200):
        labels = in_first[start : start + 200, order]
        n = labels.sum(1, keepdims=True)
        gap = np.cumsum(labels, 1) / n - np.cumsum(~labels, 1) / (labels.shape[1] - n)
        out[start : start + 200] = np.abs(gap[:, last_of_tie]).max(1)
    return out


def _mmd(x: F8, in_first: npt.NDArray[np.bool_]) -> tuple[F8, float]:
    """Unbiased squared MMD of each labelling, and the mean kernel within the runs as they are."""
    square = (x * x).sum(1)
    distance = np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0.0)
    off = distance[np.triu_indices(len(x), 1)]
    middle = float(np.median(off))
    kernel = np.exp(-distance / (middle if middle > 0 else 1.0))
    np.fill_diagonal(kernel, 0.0)
    label = in_first.astype(np.float64)
    n = label.sum(1)
    m = label.shape[1] - n
    to_first = label @ kernel
    whole = kernel.sum(1)
    first = (to_first * label).sum(1)
    cross = (to_first * (1 - label)).sum(1)
    second = whole.sum() - first - 2 * cross
    with np.errstate(divide="ignore", invalid="ignore"):
        mmd = first / (n * (n - 1)) + second / (m * (m - 1)) - 2 * cross / (n * m)
    within = 0.5 * (first[0] / (n[0] * (n[0] - 1)) + second[0] / (m[0] * (m[0] - 1)))
    return np.nan_to_num(mmd, nan=np.inf), float(within)


def _p_values(statistic: F8) -> F8:
    """Share of labellings at least as extreme as the first one, per column."""
    return (statistic >= statistic[0] - 1e-12).mean(0)


def _holm(p: F8) -> F8:
    """Holm's step-down adjustment."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, stepped)
    return out
