"""A fitted model of transitions: its network, how tokens are normalised, and what turns them into a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Arrays
from methods.diffusion.normalisers import StandardNormaliser
from methods.transitions.rows import RowHeads
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import load_weights
from tasks.common.errors import MethodError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransitionModel:
    """One replica.

    Attributes:
        layout, normaliser: of its tokens.
        module: the networks, one replica of each, by name; without gradients.
        width: of its hidden layers, which a protocol may have chosen.
        rows: auxiliary networks and emission.
        diagnosis: what fitting tells, as JSON knows it.
    """

    layout: TokenLayout
    normaliser: StandardNormaliser
    module: nn.ModuleDict
    width: int
    rows: RowHeads
    diagnosis: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        return self.layout.spec

    @property
    def device(self) -> str:
        """Where it computes."""
        return self.rows.codec.device

    def require_finite(self, values: Tensor, owner: str) -> None:
        """Refuses what a diverged network made.

        Raises:
            MethodError: if a value is not finite.
        """
        if not values.isfinite().all():
            raise MethodError(
                f"{owner}: the fitted model has diverged: it generates values that are not finite. Fit it again with a "
                "lower learning rate."
            )

    def emit(self, tokens: Tensor, data: OfflineDataset) -> OfflineDataset:
        """Normalised tokens (M, T, F) as episodes of one step; see `RowHeads.emit`."""
        return self.emit_raw(self.normaliser.decode(tokens).cpu().numpy(), data)

    def emit_raw(self, tokens: NDArray[np.float32], data: OfflineDataset) -> OfflineDataset:
        """Tokens (M, T, F) in the task's units as episodes of one step."""
        return self.rows.emit(self.layout.split(tokens), data)

    def arrays(self) -> Arrays:
        """All of it, for `from_arrays`; without times, which differ from fit to fit."""
        layout = self.layout
        lasting = {name: value for name, value in self.diagnosis.items() if name not in ("seconds", "precision")}
        settings = {
            "layout": {"joint": layout.joint, "done": layout.done, "append_state": layout.append_state},
            "width": self.width,
            "diagnosis": lasting,
        }
        weights = {name: tensor.cpu().numpy() for name, tensor in self.module.state_dict().items()}
        parts: dict[str, Arrays] = {"module": weights, "rows": self.rows.arrays(), "tokens": self.normaliser.state()}
        named = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return {**named, "model": np.frombuffer(json.dumps(settings).encode(), dtype=np.uint8).copy()}

    @classmethod
    def from_arrays(
        cls,
        arrays: Arrays,
        spec: TaskSpec,
        device: str,
        build: Callable[[TokenLayout, int], nn.ModuleDict],
    ) -> Self:
        """What `arrays` returned; `build` makes the networks of a layout and a width, which are then filled."""
        parts: dict[str, dict[str, NDArray[Any]]] = {"module": {}, "rows": {}, "tokens": {}}
        for key, array in arrays.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        settings = json.loads(arrays["model"].tobytes())
        layout = TokenLayout(spec=spec, **settings["layout"])
        module = build(layout, settings["width"])
        load_weights(module, parts["module"])
        return cls(
            layout=layout,
            normaliser=StandardNormaliser.from_state(parts["tokens"]).to(device),
            module=module.to(device),
            width=settings["width"],
            rows=RowHeads.from_arrays(parts["rows"], spec, device),
            diagnosis=settings["diagnosis"],
        )
