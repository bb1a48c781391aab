"""The kernel distance of two sets of videos (KVD), and the share of it that a model closes (g).

Real and generated videos that continue the same first frame resemble each other, whatever the
model. Pairs of them are no evidence of equal distributions, so they are left out (the paired
U-statistic). Intervals resample whole scenes; sums of the kernel over pairs of scenes are computed
once, so that a resample costs a quadratic form only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.statistics.bootstrap import MIN_SOURCES, NUM_RESAMPLES, Estimate

_MAX_UNDEFINED = 0.025  # share of resamples without a value, above which there is no interval


def kernel_distance(
    real: Float[Tensor, "n d"],
    generated: Float[Tensor, "m *k e"],
    *,
    starts: Sequence[str] | None = None,
) -> float:
    """Return the unbiased squared maximum mean discrepancy of clips that continue the same starts.

        k(x, y) = (x . y / d + 1)^3
        KVD = mean of k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)

    over all pairs i, j of different starts. With K samples y_i of a start, each kernel of y is the
    mean over these samples. Pairs of different clips of one scene stay in. The distance is 0 on
    average for equal distributions, so it may be slightly negative, and it is not larger for fewer
    clips.

    Source: the U-statistic is Lemma 6 of Gretton et al., "A Kernel Two-Sample Test" (JMLR 2012)
    with m = n; the kernel is that of KID (Binkowski et al., "Demystifying MMD GANs", ICLR 2018).

    Args:
        real: Features of the real clip of each start.
        generated: Features of the clip generated from each start, in the same order; with K
            samples of each, `n k d`.
        starts: Name of each row's first frame; rows with the same name are one start. Defaults to
            a start for each row.

    Raises:
        UserError: There are fewer than 2 starts, or the sets differ in length.

    Example:
        >>> real = torch.tensor([[0.0], [1.0]])
        >>> kernel_distance(real, torch.zeros(2, 1)), kernel_distance(real, real)
        (0.0, 0.0)
    """
    rows = [str(i) for i in range(len(real))]
    return float(paired_sums(real, generated, scenes=rows, starts=starts or rows).distance())


def closed_share(
    real: Float[Tensor, "n d"],
    generated: Float[Tensor, "m *k e"],
    frozen: Float[Tensor, "l e"],
    *,
    scenes: Sequence[str],
    starts: Sequence[str] | None = None,
    seed: int = 0,
) -> Estimate:
    """Return g, the share of the frozen first frame's distance to real video that is closed.

        g = 1 - KVD(generated) / KVD(frozen)

    1 is as real, 0 as frozen, and negative worse than frozen.

    Args:
        real: Features of the real clip of each start.
        generated: Features of the generated clips, as in `kernel_distance`.
        frozen: Features of the frozen first frame of each start.
        scenes: Name of each row's source video; whole scenes are resampled, and both distances
            computed anew, for the 95 % percentile interval. With fewer than 3 there is none.
        starts: Name of each row's first frame; defaults to a start for each row.
        seed: Seed of the resampling.

    Raises:
        UserError: There are fewer than 2 starts, the sets differ in length, or the frozen first
            frame is as near to the real clips as real ones.

    Example:
        >>> real = torch.tensor([[0.0], [3.0], [6.0]])
        >>> frozen = torch.full((3, 1), -9.0)
        >>> closed_share(real, frozen, frozen, scenes=["a", "a", "b"]).value
        0.0
    """
    of_generated, of_frozen = (
        paired_sums(real, rows, scenes=scenes, starts=starts) for rows in (generated, frozen)
    )
    return share_of(of_generated, of_frozen, seed=seed)


@dataclass(frozen=True)
class Term:
    """A mean over pairs of clips, as part of a kernel distance.

    Attributes:
        factor: Factor on the mean.
        sums: Sum over the pairs of each two scenes.
        counts: Number of these pairs.
    """

    factor: float
    sums: Float64[Tensor, "s s"]
    counts: Float64[Tensor, "s s"]

    def value(self, weights: Float64[Tensor, "*r s"]) -> Float64[Tensor, "*r"]:
        """Return factor times the mean, with scenes weighted; NaN where no pair is left."""
        top, bottom = (((weights @ m) * weights).sum(dim=-1) for m in (self.sums, self.counts))
        return self.factor * top / bottom


@dataclass(frozen=True)
class PairSums:
    """A kernel distance, kept as sums over pairs of scenes.

    Attributes:
        scenes: Names of the scenes, sorted.
        terms: The means that it adds up.
        num_clips: Number of clips of the smaller set.
        num_sources: Number of scenes of the smaller set.
    """

    scenes: tuple[str, ...]
    terms: tuple[Term, ...]
    num_clips: int
    num_sources: int

    def distance(self, weights: Float64[Tensor, "*r s"] | None = None) -> Float64[Tensor, "*r"]:
        """Return the distance.

        Args:
            weights: How often each scene counts; defaults to once.
        """
        if weights is None:
            weights = torch.ones(len(self.scenes), dtype=torch.float64)
        values = [term.value(weights) for term in self.terms]
        return torch.stack(values).sum(dim=0)


def paired_sums(
    real: Float[Tensor, "n d"],
    generated: Float[Tensor, "m *k e"],
    *,
    scenes: Sequence[str],
    starts: Sequence[str] | None = None,
) -> PairSums:
    """Return the kernel distance of clips that continue the same starts, by pairs of scenes.

    Args:
        real: Features of the real clip of each start.
        generated: Features of the generated clips, as in `kernel_distance`.
        scenes: Name of each row's source video.
        starts: Name of each row's first frame; defaults to a start for each row.

    Raises:
        UserError: There are fewer than 2 starts, or the sets differ in length.
    """
    starts = [str(i) for i in range(len(real))] if starts is None else starts
    others = {"generated ones": len(generated), "scenes": len(scenes), "starts": len(starts)}
    _require_as_many(len(real), others)
    _require_one_backbone(real, generated)
    _require_two(len(set(starts)), "starts")
    kernel = _paired_kernel(real.double().cpu(), generated.double().cpu())
    number, names = _numbered(scenes)
    of_start, _ = _numbered(starts)
    apart = of_start[:, None] != of_start
    return PairSums(
        scenes=names,
        terms=(_term(1.0, kernel, apart, number, number, num=len(names)),),
        num_clips=len(real),
        num_sources=len(names),
    )


def unpaired_sums(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "m e"],
    *,
    first_scenes: Sequence[str],
    second_scenes: Sequence[str],
) -> PairSums:
    """Return the kernel distance of clips that share no starts, by pairs of scenes.

    Pairs of one scene are left out, within a set and between the sets: where the sets are of
    different scenes, pairs of one scene occur within a set only, and would make equal
    distributions seem different.

    Args:
        first: Features of one set.
        second: Features of the other set.
        first_scenes: Name of the source video of each row of `first`.
        second_scenes: Name of the source video of each row of `second`.

    Raises:
        UserError: A set has fewer than 2 scenes, or the lengths of the features differ.
    """
    _require_as_many(len(first), {"scenes": len(first_scenes)})
    _require_as_many(len(second), {"scenes": len(second_scenes)})
    _require_one_backbone(first, second)
    fewest = min(len(set(first_scenes)), len(set(second_scenes)))
    _require_two(fewest, "source videos on each side")
    x, y = first.double().cpu(), second.double().cpu()
    number, names = _numbered([*first_scenes, *second_scenes])
    of_x, of_y = number[: len(x)], number[len(x) :]
    pairs = ((1.0, x, of_x, x, of_x), (1.0, y, of_y, y, of_y), (-2.0, x, of_x, y, of_y))
    return PairSums(
        scenes=names,
        terms=tuple(
            _term(factor, _cubic(a, b), of_a[:, None] != of_b, of_a, of_b, num=len(names))
            for factor, a, of_a, b, of_b in pairs
        ),
        num_clips=min(len(x), len(y)),
        num_sources=fewest,
    )


def share_of(distance: PairSums, frozen: PairSums, *, seed: int = 0) -> Estimate:
    """Return g = 1 - distance / frozen with a 95 % percentile interval from resampling scenes.

    There is no interval where the frozen first frame is as near as real clips in more than 2.5 % of
    the resamples.

    Args:
        distance: Kernel distance to real video.
        frozen: That of the frozen first frame.
        seed: Seed of the resampling.

    Raises:
        UserError: The frozen first frame is as near to the real clips as real ones.
    """
    require_motion(frozen)
    return joint_estimate([distance, frozen], lambda d: closed(d[0], d[1]), seed=seed)


def require_motion(frozen: PairSums) -> None:
    """Check that g is defined: the frozen first frame differs from real video.

    Args:
        frozen: Kernel distance of the frozen first frame.

    Raises:
        UserError: It is not above 0.
    """
    value = float(frozen.distance())
    if not value > 0:
        raise UserError(
            f"g needs a frozen first frame that differs from the real clips, its KVD is {value:.3g}"
            " and not above 0: give more clips, or clips that move"
        )


def closed(distance: Float64[Tensor, "*r"], frozen: Float64[Tensor, "*r"]) -> Float64[Tensor, "*r"]:
    """Return 1 - distance / frozen; NaN where `frozen` is not above 0."""
    return torch.where(frozen > 0, 1 - distance / frozen, torch.nan)


def joint_estimate(
    parts: Sequence[PairSums],
    statistic: Callable[[Sequence[Tensor]], Tensor],
    *,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of several kernel distances, with scenes resampled together.

    Args:
        parts: The distances, at least one.
        statistic: Maps the distances to numbers; NaN where it is undefined.
        seed: Seed of the resampling.
    """
    value = float(statistic([part.distance() for part in parts]))
    num_sources = min(part.num_sources for part in parts)
    low = high = None
    if num_sources >= MIN_SOURCES:
        low, high = _interval(parts, statistic, seed=seed)
    return Estimate(value, low, high, min(part.num_clips for part in parts), num_sources)


def _interval(
    parts: Sequence[PairSums], statistic: Callable[[Sequence[Tensor]], Tensor], *, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Return the 2.5 % and 97.5 % quantiles of the resamples in which two starts are left."""
    names = sorted({name for part in parts for name in part.scenes})
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(names), (NUM_RESAMPLES, len(names)), generator=generator)
    weights = torch.zeros(drawn.shape, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    number = {name: i for i, name in enumerate(names)}
    distances = torch.stack(
        [part.distance(weights[:, [number[name] for name in part.scenes]]) for part in parts]
    )
    draws = statistic(list(distances[:, distances.isfinite().all(dim=0)]))
    known = draws[draws.isfinite()]
    if len(known) < 2 or len(known) < (1 - _MAX_UNDEFINED) * len(draws):
        return None, None
    ends = torch.quantile(known, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def _term(
    factor: float,
    kernel: Float64[Tensor, "n m"],
    apart: Bool[Tensor, "n m"],
    of_rows: Int[Tensor, " n"],
    of_columns: Int[Tensor, " m"],
    *,
    num: int,
) -> Term:
    """Sum a kernel over the pairs that are apart, by scenes."""
    counts = apart.double()
    sums, pairs = (
        torch.zeros(num, len(of_columns), dtype=torch.float64).index_add(0, of_rows, matrix)
        for matrix in (kernel * counts, counts)
    )
    empty = torch.zeros(num, num, dtype=torch.float64)
    return Term(factor, empty.index_add(1, of_columns, sums), empty.index_add(1, of_columns, pairs))


def _cubic(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _paired_kernel(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "n *k d"]
) -> Float64[Tensor, "n n"]:
    """Return k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j), means over samples of y."""
    samples = y.reshape(len(y), -1, y.shape[-1]).unbind(dim=1)
    kernel = _cubic(x, x)
    for a in samples:
        cross = _cubic(x, a)
        kernel -= (cross + cross.mT) / len(samples)
        for b in samples:
            kernel += _cubic(a, b) / len(samples) ** 2
    return kernel


def _numbered(names: Sequence[str]) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
    """Return the number of each name among the sorted different ones, and these."""
    different = sorted(set(names))
    number = {name: i for i, name in enumerate(different)}
    return torch.tensor([number[name] for name in names], dtype=torch.long), tuple(different)


def _require_as_many(num: int, others: Mapping[str, int]) -> None:
    for name, count in others.items():
        if count != num:
            raise UserError(
                f"a kernel distance needs one row for each start, got {num} real clips and {count} "
                f"{name}: give as many, in the same order"
            )


def _require_one_backbone(x: Tensor, y: Tensor) -> None:
    if x.shape[-1] != y.shape[-1]:
        raise UserError(
            f"features of {x.shape[-1]} and of {y.shape[-1]} numbers cannot be compared: take both "
            "from one backbone"
        )


def _require_two(num: int, of_what: str) -> None:
    if num < 2:
        raise UserError(f"a kernel distance needs at least 2 {of_what}, got {num}: give more")
