"""How a long training in several stages reports, and is resumed after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Arrays, Run

_REPORT_SECONDS = 1.0


class Journal:
    """Progress and checkpoints of the stages of one training.

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


def adam_arrays(adam: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """The moments that an Adam keeps of each of its parameters, given by name."""
    states = {name: adam.state.get(parameter, {}) for name, parameter in named.items()}
    return {f"{key}/{name}": to_array(value) for name, state in states.items() for key, value in state.items()}


def load_adam(adam: torch.optim.Optimizer, named: Mapping[str, Tensor], arrays: Arrays) -> None:
    """Takes what `adam_arrays` returned; a parameter that never made a step has no moments."""
    for name, parameter in named.items():
        if f"step/{name}" in arrays:
            adam.state[parameter] = {
                key: torch.from_numpy(np.array(arrays[f"{key}/{name}"])).to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }


def to_array(tensor: Tensor) -> NDArray[Any]:
    """A copy on the CPU."""
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
