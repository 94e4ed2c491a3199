"""Generating whole episodes from one model, in batches of bounded memory, until there are enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from methods.base import Run
from methods.diffusion.episodes.matrix import DecodedEpisodes
from methods.diffusion.episodes.model import EpisodeModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.sampling import numpy_noise
from methods.journal import pack_generators, restore_generators
from methods.synthesis.emission import GeneratedRows, emit_episodes
from methods.synthesis.emit import until_amount
from methods.synthesis.report import GenerationReport
from tasks.datasets.offline import OfflineDataset, concatenate
from tasks.spec import TaskSpec

_EPISODES_AT_ONCE = 512
_VALUES_AT_ONCE = 2**23  # of all signals of a batch; a fixed rule, since another batch draws other noise
_REPORT_SECONDS = 1.0
_COLUMN = "column/"  # of a checkpoint
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def generate_episodes(
    model: EpisodeModel,
    data: OfflineDataset,
    sampler: Sampler,
    run: Run,
    report: GenerationReport,
    *,
    episodes: int,
    owner: str,
) -> OfflineDataset:
    """Whole episodes of `run.budget.amount` transitions.

    Args:
        model: fitted on `data`.
        data: the original episodes, whose ranges the result keeps.
        sampler: from noise to signals.
        run: amount, seed, progress; its checkpoint keeps what is drawn.
        report: filled; a window is an episode.
        episodes: how many, where the budget names no amount.
        owner: for messages and random streams.

    Raises:
        MethodError: if the model diverged.
        TimeoutError: after the deadline.
    """
    amount, generator = run.budget.amount, run.generator(f"{owner}/noise")
    noise = numpy_noise(generator, model.device)
    largest = max(1, min(_EPISODES_AT_ONCE, _VALUES_AT_ONCE // (model.matrix.length * model.matrix.channels)))
    drawn = _Drawn(run, data.spec, generator)
    lengths = drawn.all()[0].lengths
    while (missing := _missing(lengths, amount, episodes, model.matrix.longest)) > 0:
        done, total = (len(lengths), episodes) if amount is None else (int(lengths.sum()), amount)
        tell = _at_most_every_second(partial(run.report, done, total, f"{owner}: {len(lengths)} episodes"))
        tell()
        with report.timed("sampling"):
            signals = model.sample(min(largest, missing), noise=noise, sampler=sampler, before_pass=tell)
            if signals.is_cuda:
                torch.cuda.synchronize()
        with report.timed("bookkeeping"):
            decoded = model.matrix.decode(signals)
        with report.timed("heads"):
            rows = to_rows(model, decoded)
        with report.timed("bookkeeping"):
            part = emit_episodes(model, rows, data)
            drawn.add(part, decoded)
        lengths = np.concatenate([lengths, part.lengths])
    needed = episodes if amount is None else until_amount(lengths, amount)
    whole, values, marked = drawn.all()
    result = whole.take(np.arange(needed))
    report.count(np.arange(len(lengths)) < needed, np.zeros(len(lengths), dtype=np.int64), reason="surplus")
    report.extra["marked_share"] = float(marked.mean())
    report.extra["distributions"] = {
        "quantiles": list(_QUANTILES),
        "returns": {"original": _quantiles(data.returns()), "generated": _quantiles(result.returns())},
        "values": {
            "original": _quantiles(data.returns_to_go(model.settings.gamma)[data.episode_starts[:-1]]),
            "predicted": _quantiles(values),
            "generated": _quantiles(result.returns_to_go(model.settings.gamma)[result.episode_starts[:-1]]),
        },
        "lengths": {"original": _quantiles(data.lengths), "generated": _quantiles(result.lengths)},
    }
    return result


class _Drawn:
    """What was drawn so far, in this process or a killed one, whose generator then goes on where it was."""

    def __init__(self, run: Run, spec: TaskSpec, generator: np.random.Generator) -> None:
        self._checkpoint, self._generator = run.checkpoint, generator
        self._parts = [OfflineDataset.empty(spec)]
        self._values, self._marked = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
        stored = None if run.checkpoint is None else run.checkpoint.load()
        if stored is not None:
            columns = {n.removeprefix(_COLUMN): np.array(a) for n, a in stored.items() if n.startswith(_COLUMN)}
            self._parts = [OfflineDataset(spec=spec, **columns)]
            self._values, self._marked = [np.array(stored["values"])], [np.array(stored["marked"])]
            restore_generators([generator], stored["generator"])

    def add(self, part: OfflineDataset, decoded: DecodedEpisodes) -> None:
        """One batch more."""
        self._parts.append(part)
        self._values.append(decoded.returns_to_go[:, 0])
        self._marked.append(decoded.marked)
        if self._checkpoint is not None and self._checkpoint.due():
            episodes, values, marked = self.all()
            columns = {f"{_COLUMN}{name}": column for name, column in episodes.columns().items()}
            state = pack_generators([self._generator])
            self._checkpoint.save({**columns, "values": values, "marked": marked, "generator": state})

    def all(self) -> tuple[OfflineDataset, NDArray[np.float32], NDArray[np.bool_]]:
        """The episodes, Q (E,) at their first steps as predicted, and whether their ends (E,) are clear."""
        return concatenate(self._parts), np.concatenate(self._values), np.concatenate(self._marked)


def to_rows(model: EpisodeModel, decoded: DecodedEpisodes) -> GeneratedRows:
    """Decoded signals as rows for the one emission of all methods.

    An episode shorter than the task's limit ended truly, if any of the data do. At the limit the signal says the same
    of true ends and of time limits: there the termination head decides (inferred).
    """
    with torch.no_grad():
        x = model.encode(decoded.observations, decoded.states)  # (B, T + 1, N, D')
        actions = model.chosen_actions(decoded.actions, x[:, :-1])
        terminal = np.full(len(decoded.lengths), model.has("termination"))
        at_limit = terminal & (decoded.lengths >= model.spec.episode_limit)
        if at_limit.any():
            last = x[torch.arange(len(x), device=x.device), torch.from_numpy(decoded.lengths).to(x.device)]
            terminal &= ~at_limit | model.termination(last).cpu().numpy()
    return GeneratedRows(
        observations=x,
        actions=actions,
        rewards=torch.from_numpy(np.array(decoded.rewards)),
        lengths=decoded.lengths,
        terminal=terminal,
    )


def _missing(lengths: NDArray[np.int64], amount: int | None, episodes: int, longest: int) -> int:
    """About how many more episodes it takes; 0 once there are enough."""
    if amount is None:
        return episodes - len(lengths)
    left = amount - int(lengths.sum())
    return math.ceil(left / (lengths.mean() if len(lengths) else longest))


def _at_most_every_second(report: Callable[[], None]) -> Callable[[], None]:
    """The same report, left out where the last one is too recent."""
    last = -math.inf

    def tell() -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            report()
            last = time.monotonic()

    return tell


def _quantiles(values: NDArray[Any]) -> list[float]:
    return [float(value) for value in np.quantile(np.asarray(values, np.float64), _QUANTILES)]
