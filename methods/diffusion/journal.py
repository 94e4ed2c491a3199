"""How a long fit in several stages reports, is resumed, and steps its parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays, Run

_REPORT_SECONDS = 1.0


class Journal:
    """Progress and checkpoints of the stages of one fit.

    Args:
        run: where reports and checkpoints go.
        total: steps of all stages together.
    """

    def __init__(self, run: Run, total: int) -> None:
        self._run, self._total, self._reported = run, total, 0.0
        stored = run.checkpoint.load() if run.checkpoint is not None else None
        self._stored: dict[str, NDArray[Any]] = dict(stored or {})
        self._finished = {name: a for name, a in self._stored.items() if name.startswith("finished/")}

    def report(self, done: int, message: str, *, now: bool = False) -> None:
        """Tells `run` how far the fit is, at most once a second unless `now`. Raises TimeoutError past the deadline."""
        if now or time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._run.report(done, self._total, message)
            self._reported = time.monotonic()

    def wants_report(self) -> bool:
        """Whether `report` would do anything; saves the caller what the message costs."""
        return time.monotonic() - self._reported >= _REPORT_SECONDS

    def result(self, stage: str) -> Arrays | None:
        """What `finish` stored for a stage, in this process or a killed one."""
        return _under(f"finished/{stage}/", self._finished)

    def resumed(self, stage: str) -> Arrays | None:
        """What `save` last stored for a stage that did not finish."""
        return _under(f"current/{stage}/", self._stored)

    def due(self) -> bool:
        """Whether a checkpoint should be saved now."""
        return self._run.checkpoint is not None and self._run.checkpoint.due()

    def save(self, stage: str, arrays: Arrays) -> None:
        """Stores the state of the current stage beside the results of finished ones."""
        if self._run.checkpoint is not None:
            current = {f"current/{stage}/{name}": array for name, array in arrays.items()}
            self._run.checkpoint.save({**self._finished, **current})

    def finish(self, stage: str, arrays: Arrays) -> None:
        """Stores the result of a stage."""
        self._finished.update({f"finished/{stage}/{name}": array for name, array in arrays.items()})
        if self._run.checkpoint is not None:
            self._run.checkpoint.save(self._finished)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays | None:
    found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return found or None


class StackedAdam:
    """Adam on parameters (R, ...): element-wise, so that no replica touches another, and none of them clipped."""

    def __init__(self, module: nn.Module, learning_rate: float) -> None:
        self.named = dict(module.named_parameters())
        self._parameters = list(self.named.values())
        self._adam = torch.optim.Adam(self._parameters, lr=learning_rate, fused=True)

    def step(self, losses: Tensor, learning_rate: float | None = None) -> None:
        """One update from the losses (R,), which are summed: no replica rescales another's gradient."""
        if learning_rate is not None:
            self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.zero_grad()
        torch.autograd.backward(losses.sum())
        for parameter in self._parameters:
            # torch's fused Adam reads a gradient in memory order, whatever its strides say (torch 2.13, CPU).
            if parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()
        self._adam.step()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Parameters and moments."""
        stored: dict[str, NDArray[Any]] = {}
        for name, parameter in self.named.items():
            stored[f"weights/{name}"] = _array(parameter)
            for key, value in self._adam.state[parameter].items():
                stored[f"{key}/{name}"] = _array(value)
        return stored

    def load(self, arrays: Arrays) -> None:
        """Takes what `arrays` returned."""
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(torch.from_numpy(np.array(arrays[f"weights/{name}"])))
                self._adam.state[parameter] = {
                    key: torch.from_numpy(np.array(arrays[f"{key}/{name}"])).to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().copy()


def pack_generators(generators: Sequence[np.random.Generator]) -> NDArray[np.uint64]:
    """(R, 13) the states of Philox generators, for `restore_generators`."""
    rows = []
    for generator in generators:
        state: Mapping[str, Any] = generator.bit_generator.state
        words = [*state["state"]["counter"], *state["state"]["key"], *state["buffer"]]
        rows.append([*words, state["buffer_pos"], state["has_uint32"], state["uinteger"]])
    return np.array(rows, dtype=np.uint64)


def restore_generators(generators: Sequence[np.random.Generator], packed: NDArray[np.uint64]) -> None:
    """Puts Philox generators into packed states."""
    for generator, row in zip(generators, packed, strict=True):
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": row[:4].copy(), "key": row[4:6].copy()},
            "buffer": row[6:10].copy(),
            "buffer_pos": int(row[10]),
            "has_uint32": int(row[11]),
            "uinteger": int(row[12]),
        }
