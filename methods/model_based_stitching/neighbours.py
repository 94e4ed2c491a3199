"""The nearest rows within a radius, for all rows of a dataset at once, in blocks.

Joint observations have too many independent directions for a search tree: scipy's visits most of 100,000 rows. Here
the rows are compared block by block with matrix products, in the directions in which they differ at all, and pairs of
blocks whose bounding boxes are too far apart are left out. What is kept is measured again in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 512
"""Rows of a block; a product compares one with four others, so that its (512, 2048) distances stay in a cache."""

_AT_ONCE = 4  # blocks that one is compared with in a product
_SPARE = 16  # neighbours kept beyond the limit, until they are measured exactly
_NOTHING = 1e-10  # share of the largest variance below which a direction is the same for all rows
_SLACK = 1e-4  # of a squared distance in float32


def nearest_rows(
    points: NDArray[np.float32],
    radius: float,
    limit: int,
    *,
    device: str = "cpu",
    block: int = BLOCK,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.int32]:
    """At most `limit` nearest other rows within the radius, by distance, then by index; −1 behind them.

    Exact but for one thing: rows whose squared distances differ by less than the rounding of float32 may change places
    where the limit cuts them off, if there are more than 16 of them.

    Args:
        points: (M, X) finite.
        radius: Euclidean, in the units of the points.
        limit: K.
        device: where the products are computed.
        block: rows of a block; bounds the memory: 4 · block² distances at a time.
        report: called with rows done and rows in all.

    Returns:
        (M, K).
    """
    rows = len(points)
    found = np.full((rows, limit), -1, dtype=np.int32)
    turned = _turned(points)
    order = _in_boxes(turned, block)
    starts = np.arange(0, rows, block)
    sorted_points = turned[order]
    low = np.minimum.reduceat(sorted_points, starts) if rows else sorted_points
    high = np.maximum.reduceat(sorted_points, starts) if rows else sorted_points
    products = _Products(torch.from_numpy(sorted_points).to(device), block)
    for own, start in enumerate(starts.tolist()):
        gaps = np.maximum(0, np.maximum(low - high[own], low[own] - high))  # (blocks, X')
        apart = np.square(gaps, dtype=np.float64).sum(axis=1)
        apart[own] = -1.0  # first
        candidates = _nearest_in_order(products, own, apart, radius, limit + _SPARE)
        inside = order[start : start + block]
        _measure(points, inside, np.where(candidates < 0, -1, order[candidates]), radius, found)
        report(start + len(inside), rows)
    return found


def nearest_distances(
    points: NDArray[np.float32], groups: NDArray[np.int64], chosen: NDArray[np.int64], block: int = 16_384
) -> NDArray[np.float64]:
    """(C,) from each chosen row to the nearest one of another group; to any other where there is one group.

    Infinite where there is no other row. By brute force, in blocks of (64, block) distances.
    """
    nearest = np.full(len(chosen), np.inf)
    alone = len(np.unique(groups)) < 2
    norms = np.square(points, dtype=np.float64).sum(axis=1)  # (M,)
    for begin in range(0, len(chosen), 64):
        part = chosen[begin : begin + 64]
        best = np.full(len(part), np.inf)
        index = np.full(len(part), -1)
        for start in range(0, len(points), block):
            rows = slice(start, start + block)
            squared = norms[part][:, None] + norms[rows] - 2.0 * (points[part] @ points[rows].T)
            there = np.arange(start, start + squared.shape[1])
            same = there == part[:, None] if alone else groups[rows] == groups[part][:, None]
            squared[same] = np.inf
            closest = squared.argmin(axis=1)
            distance = squared[np.arange(len(part)), closest]
            index[distance < best] = there[closest[distance < best]]
            best = np.minimum(best, distance)
        known = index >= 0
        difference = points[part[known]].astype(np.float64) - points[index[known]]
        nearest[begin : begin + 64][known] = np.sqrt(np.square(difference).sum(axis=1))
    return nearest


def _turned(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, X') in the directions in which rows differ, the widest first: distances stay what they are."""
    if not len(points):
        return points
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = centred.T.astype(np.float64) @ centred / len(points)
    variance, directions = np.linalg.eigh(covariance)
    kept = variance > _NOTHING * max(float(variance[-1]), 1e-30)
    turned: NDArray[np.float32] = (centred @ directions[:, kept][:, ::-1]).astype(np.float32)
    return turned


def _in_boxes(points: NDArray[np.float32], block: int) -> NDArray[np.int64]:
    """An order of the rows in which every block of them lies in a small box: halved again and again where widest."""
    order = np.arange(len(points))
    waiting = [(0, len(points))]
    while waiting:
        first, last = waiting.pop()
        if last - first <= block or not points.shape[1]:
            continue
        inside = order[first:last]
        own = points[inside]
        widest = int((own.max(axis=0) - own.min(axis=0)).argmax())
        half = block * max(1, (last - first) // (2 * block))
        order[first:last] = inside[np.argpartition(own[:, widest], half)]
        waiting += [(first, first + half), (first + half, last)]
    return order


class _Products:
    """Squared distances of one block to several others, written into the same memory again and again."""

    def __init__(self, data: Tensor, block: int) -> None:
        self.data, self.block = data, block
        self._squared = data.new_empty(block * block * _AT_ONCE)
        self._inside = torch.empty(len(self._squared), dtype=torch.bool, device=data.device)

    def squared(self, query: Tensor, other: Tensor) -> Tensor:
        """(B, C) from (B, X') and (C, X'): one product of [−2 q, |q|², 1] and [c, 1, |c|²]."""
        left = torch.cat([-2 * query, _squares(query), torch.ones_like(query[:, :1])], dim=1)
        right = torch.cat([other, torch.ones_like(other[:, :1]), _squares(other)], dim=1)
        shape = (len(query), len(other))
        return torch.mm(left, right.T, out=self._squared[: shape[0] * shape[1]].view(shape))

    def within(self, squared: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and columns, by row, at which squared distances (B, C) are at most the bound (B, 1)."""
        inside = torch.le(squared, bound, out=self._inside[: squared.numel()].view(squared.shape))
        if inside.device.type == "cpu":
            flat = torch.from_numpy(np.flatnonzero(inside.numpy()))  # much faster than torch's on a CPU
        else:
            flat = inside.flatten().nonzero()[:, 0]
        return flat // squared.shape[1], flat % squared.shape[1]


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(dim=1, keepdim=True)


def _nearest_in_order(
    products: _Products, own: int, apart: NDArray[np.float64], radius: float, limit: int
) -> NDArray[np.int64]:
    """(B, K) positions in the data of the rows nearest to those of block `own`, −1 behind them; by float32 squares."""
    data, block = products.data, products.block
    query = data[own * block : (own + 1) * block]
    centre = query.mean(dim=0)
    query = query - centre
    bound = query.new_full((len(query), 1), min(radius, 1e15) ** 2 * (1 + _SLACK) + 1e-6)
    distances = query.new_full((len(query), limit), torch.inf)
    positions = torch.full((len(query), limit), -1, dtype=torch.int64, device=data.device)
    turn = np.argsort(apart, kind="stable")
    near = turn[: np.searchsorted(apart[turn], float(bound.max()), side="right")]
    for first in range(0, len(near), _AT_ONCE):
        if apart[near[first]] > float(bound.max()):
            break
        there = torch.cat([torch.arange(b * block, min((b + 1) * block, len(data))) for b in near[first:][:_AT_ONCE]])
        at = there.to(data.device)
        squared = products.squared(query, data[at] - centre)  # (B, C)
        if first == 0:
            squared[:, : len(query)].fill_diagonal_(torch.inf)  # oneself
        r, c = products.within(squared, bound)
        count = torch.bincount(r, minlength=len(query))
        width = int(count.max())
        if not width:
            continue
        if width > 2 * limit:
            new, column = squared.topk(min(limit, squared.shape[1]), dim=1, largest=False)
            where = at[column]
        else:
            place = torch.arange(len(r), device=r.device) - (count.cumsum(0) - count)[r]
            new, where = squared.new_full((len(query), width), torch.inf), positions.new_full((len(query), width), -1)
            new[r, place], where[r, place] = squared[r, c], at[c]
        distances, kept = torch.cat([distances, new], dim=1).topk(limit, dim=1, largest=False)
        positions = torch.cat([positions, where], dim=1).gather(1, kept)
        bound = torch.minimum(bound, distances[:, -1:] * (1 + _SLACK) + 1e-6)
    positions[distances == torch.inf] = -1
    found: NDArray[np.int64] = positions.cpu().numpy()
    return found


def _measure(
    points: NDArray[np.float32],
    inside: NDArray[np.int64],
    candidates: NDArray[np.int64],
    radius: float,
    found: NDArray[np.int32],
) -> None:
    """Writes the nearest of candidates (B, K') of rows `inside` (B,) to `found`: by distance in float64, then index."""
    difference = points[inside][:, None].astype(np.float64) - points[np.maximum(candidates, 0)]  # (B, K', X)
    distances = np.sqrt(np.square(difference, out=difference).sum(axis=-1))
    distances[(candidates < 0) | (distances > radius)] = np.inf
    order = np.lexsort((candidates, distances), axis=1)[:, : found.shape[1]]
    nearest = np.take_along_axis(candidates, order, axis=1)
    found[inside] = np.where(np.isfinite(np.take_along_axis(distances, order, axis=1)), nearest, -1)
