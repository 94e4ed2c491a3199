"""The loop that every learner runs: updates, progress, points of the learning curve, checkpoints, the final losses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays, Budget, Run
from methods.journal import (
    Journal,
    adam_arrays,
    load_adam,
    pack_generators,
    restore_generators,
    to_array,
)
from methods.networks.policy import AgentPolicy
from methods.networks.stacked import clip_each_replica

_REPORT_EVERY = 200  # updates between two reports of progress
_RECENT = 100  # last losses that a final one is the mean of: one batch says little

Batch = TypeVar("Batch")
BatchT = TypeVar("BatchT", contravariant=True)
Losses = Mapping[str, Tensor]


class Parts(NamedTuple):
    """All that the updates of a trainer change, and so what a checkpoint holds.

    Attributes:
        tensors: by name: parameters, buffers and targets, changed in place.
        optimisers: Adams whose parameters are among the tensors.
        generators: of whatever updates draw, each by itself.
    """

    tensors: Mapping[str, Tensor]
    optimisers: Sequence[torch.optim.Optimizer]
    generators: Sequence[np.random.Generator] = ()


def named_tensors(**modules: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of modules by name, as `Parts` has them."""
    return {f"{own}.{name}": tensor for own, module in modules.items() for name, tensor in module.state_dict().items()}


class Trainer(Protocol[BatchT]):
    """Networks of R teams that learn together.

    Attributes:
        done: updates so far; every `update` adds one.
    """

    done: int

    def update(self, batch: BatchT) -> Losses:
        """One gradient update of everything; (R,) losses by name, those that this update computed."""

    def parts(self) -> Parts:
        """What a checkpoint must hold beside `done`."""


def train(
    batches: Iterable[Batch], trainer: Trainer[Batch], run: Run, updates: int, freeze: Callable[[], AgentPolicy]
) -> dict[str, list[float]]:
    """Makes all updates, one a batch; goes on where a killed training last saved its state.

    Args:
        batches: `updates` of them, the same ones whenever they are drawn with the run's seeds.
        trainer: before its first update.
        run: progress, snapshots, deadline, checkpoint.
        updates: how many.
        freeze: a copy of the policy as it is, for the points of the curve before the last.

    Returns:
        For each loss the means of the last hundred values, one a replica; NaN where training diverged.

    Raises:
        TimeoutError: after the deadline of the run.
    """
    journal, points = Journal(run, updates), curve_points(updates, run.budget)
    recent, curve = _resumed(journal, trainer, run, freeze)
    for batch in _missing(batches, trainer, updates):
        for name, loss in trainer.update(batch).items():
            recent.setdefault(name, deque(maxlen=_RECENT)).append(loss.detach())
        done = trainer.done
        if done % _REPORT_EVERY == 0 or done == updates:
            told = ", ".join(f"{name} {torch.stack(list(last)).nanmean():.4g}" for name, last in recent.items())
            run.report(done, updates, told)
        if done in points and done < updates:
            policy = freeze()
            run.snapshot(done, policy)
            if run.checkpoint is not None:
                curve[done] = [policy.state(r) for r in range(policy.replicas)]
        if journal.due():
            journal.save(_STAGE, _state(trainer, recent, curve))
    return {name: torch.stack(list(last)).mean(dim=0).tolist() for name, last in recent.items()}


def pretrain(stage: str, batches: Iterable[Batch], trainer: Trainer[Batch], run: Run, updates: int) -> None:
    """Makes all updates of something that `train` needs first. A killed training does not repeat it.

    Args:
        stage: its name among the stages of the training.
        batches: `updates` of them, as in `train`.
        trainer: before its first update.
        run: progress, deadline, checkpoint.
        updates: how many.

    Raises:
        TimeoutError: after the deadline of the run.
    """
    journal = Journal(run, updates)
    stored = journal.result(stage) or journal.resumed(stage)
    if stored is not None:
        restore(trainer, stored)
    for batch in _missing(batches, trainer, updates):
        losses = trainer.update(batch)
        if trainer.done % _REPORT_EVERY == 0 or trainer.done == updates:
            told = ", ".join(f"{stage} {name} {loss.detach().nanmean():.4g}" for name, loss in losses.items())
            run.report(trainer.done, updates, told)
        if journal.due():
            journal.save(stage, stored_parts(trainer))
    if journal.result(stage) is None:
        journal.finish(stage, stored_parts(trainer))


_STAGE = "updates"


def _missing(batches: Iterable[Batch], trainer: Trainer[Batch], updates: int) -> Iterable[Batch]:
    """The batches of the updates still to make. Those before them are drawn again, unless there are no others."""
    return islice(batches, trainer.done, None) if trainer.done < updates else ()


def stored_parts(trainer: Trainer[Any]) -> dict[str, NDArray[Any]]:
    """The state of a trainer as arrays, for `restore`."""
    parts = trainer.parts()
    arrays: dict[str, NDArray[Any]] = {"done": np.array([trainer.done], dtype=np.int64)}
    arrays |= {f"tensors/{name}": to_array(tensor) for name, tensor in parts.tensors.items()}
    for i, adam in enumerate(parts.optimisers):
        arrays |= {f"adam/{i}/{name}": array for name, array in adam_arrays(adam, _parameters(adam)).items()}
    if parts.generators:
        arrays["generators"] = pack_generators(parts.generators)
    return arrays


def restore(trainer: Trainer[Any], arrays: Arrays) -> None:
    """Puts a trainer into the state that `stored_parts` told of it."""
    parts = trainer.parts()
    trainer.done = int(arrays["done"][0])
    with torch.no_grad():
        for name, tensor in parts.tensors.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[f"tensors/{name}"])))
    for i, adam in enumerate(parts.optimisers):
        load_adam(adam, _parameters(adam), _under(f"adam/{i}/", arrays))
    if parts.generators:
        restore_generators(parts.generators, arrays["generators"])


def _parameters(adam: torch.optim.Optimizer) -> dict[str, Tensor]:
    every = [p for group in adam.param_groups for p in group["params"]]
    return {str(j): p for j, p in enumerate(every)}


def _state(
    trainer: Trainer[Any], recent: Mapping[str, Sequence[Tensor]], curve: Mapping[int, Sequence[Arrays]]
) -> dict[str, NDArray[Any]]:
    """The trainer, the losses so far, and the points of the curve, which the run of a killed process cannot keep."""
    arrays = stored_parts(trainer)
    arrays |= {f"recent/{name}": to_array(torch.stack(list(last))) for name, last in recent.items()}
    for done, states in curve.items():
        for r, state in enumerate(states):
            arrays |= {f"curve/{done}/{r}/{name}": np.array(array) for name, array in state.items()}
    return arrays


def _resumed(
    journal: Journal, trainer: Trainer[Any], run: Run, freeze: Callable[[], AgentPolicy]
) -> tuple[dict[str, deque[Tensor]], dict[int, list[Arrays]]]:
    """Losses and curve up to where a killed training was saved, with the trainer put there; none where there is none.

    The points of the curve are given to the run once more.
    """
    stored = journal.resumed(_STAGE)
    if stored is None:
        return {}, {}
    restore(trainer, stored)
    recent = {
        name: deque(torch.from_numpy(np.array(values)).to(run.device), maxlen=_RECENT)
        for name, values in _under("recent/", stored).items()
    }
    curve: dict[int, list[Arrays]] = {}
    points = _under("curve/", stored)
    for done in sorted({int(name.partition("/")[0]) for name in points}):
        policy = freeze()
        curve[done] = [_under(f"{done}/{r}/", points) for r in range(policy.replicas)]
        policy.load(curve[done])
        run.snapshot(done, policy)
    return recent, curve


def _under(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def descend(
    adam: torch.optim.Optimizer, parameters: Sequence[Tensor], losses: Tensor, groups: int, max_norm: float
) -> None:
    """One step of `adam` on the sum of `losses`, of any shape: a sum, for no replica may rescale another's gradient.

    The gradients of each of `groups` slices are clipped to a joint L2 norm of `max_norm`; 0: they are not.
    """
    adam.zero_grad()
    torch.autograd.backward(losses.sum(), inputs=list(parameters))
    if max_norm > 0:
        clip_each_replica(parameters, groups, max_norm)
    adam.step()


def curve_points(updates: int, budget: Budget) -> frozenset[int]:
    """After which updates a point of the learning curve is due: evenly spaced, the last one included."""
    return frozenset(round(updates * (i + 1) / budget.snapshots) for i in range(budget.snapshots))


def final_losses(losses: Mapping[str, Sequence[float]], replica: int) -> dict[str, float | None]:
    """`train`'s losses of one replica as diagnosis: `final_<name>`, None where training diverged."""
    found = {f"final_{name}": values[replica] for name, values in losses.items()}
    return {name: value if value == value and abs(value) < float("inf") else None for name, value in found.items()}
