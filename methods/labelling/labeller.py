"""The quality labeller: a GRU that learns an oracle's answers and gives them for every window (CODI, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import require
from methods.labelling.encoding import StepEncoder
from methods.labelling.windows import LabelWindows
from methods.networks.stacked import StackedGRU, StackedMLP
from tasks.spec import TaskSpec

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellerSettings:
    """A GRU and a perceptron behind it; CODI names both and gives no sizes."""

    scope: str = "joint"  # "joint": all agents' steps in one GRU; "per_agent": a shared GRU, softmax over agents
    hidden: int = 128  # inferred; of the GRU and of the perceptron
    learning_rate: float = 1e-3  # inferred; Adam
    batch_size: int = 256  # inferred
    epochs: int = 50  # inferred; at most
    validation_share: float = 0.1  # inferred; of the labelled windows, to stop early; 0: train on all, to the end
    patience: int = 5  # inferred; epochs without a smaller validation loss

    def __post_init__(self) -> None:
        require(self.scope in ("joint", "per_agent"), "labeller", f"scope={self.scope}", "joint or per_agent")


class LabellerNetwork(nn.Module):
    """Steps of a window -> logits of its agents, from the state after the last step that is no padding."""

    def __init__(self, spec: TaskSpec, settings: LabellerSettings, generator: np.random.Generator) -> None:
        super().__init__()
        features = spec.obs_dim + spec.action.size
        self.joint = settings.scope == "joint"
        n_in, n_out = (spec.n_agents * features + 1, spec.n_agents) if self.joint else (features + 1, 1)
        self.memory = StackedGRU(n_in, settings.hidden, [generator])
        self.decoder = StackedMLP((settings.hidden, settings.hidden, n_out), [generator])

    def forward(self, points: Tensor, rewards: Tensor, steps: Tensor) -> Tensor:
        """(M, T, N, F), (M, T) and (M,) valid steps -> logits (M, N)."""
        batch, length, n = points.shape[:3]
        if self.joint:
            x = torch.cat([points.flatten(2), rewards[..., None]], dim=-1)  # (M, T, N · F + 1)
        else:
            shared = rewards[..., None, None].expand(batch, length, n, 1)
            x = torch.cat([points, shared], dim=-1).transpose(1, 2).flatten(0, 1)  # (M · N, T, F + 1)
            steps = steps.repeat_interleave(n)
        states, _ = self.memory(x.transpose(0, 1)[None])  # (1, T, M or M · N, 128)
        last = states[0, steps - 1, torch.arange(len(steps), device=x.device)]
        logits: Tensor = self.decoder(last[None])[0]
        return logits if self.joint else logits.view(batch, n)


class Labeller:
    """A fitted labeller.

    Attributes:
        diagnosis: training_loss, validation_loss, validation_accuracy (None without validation), chance (1 / N),
            updates, labelled.
    """

    def __init__(self, network: LabellerNetwork, encoder: StepEncoder, diagnosis: dict[str, Any], device: str) -> None:
        self._network, self._encoder, self._device, self.diagnosis = network, encoder, device, diagnosis

    def predict(self, windows: LabelWindows) -> NDArray[np.float32]:
        """Label vectors z of M windows, (M, N): the probability of each agent to be the best one; rows sum to 1."""
        with torch.no_grad():
            logits = self._network(*_inputs(self._encoder, windows, self._device))
        return np.asarray(logits.softmax(dim=-1).cpu().numpy(), dtype=np.float32)


def fit_labeller(
    settings: LabellerSettings,
    spec: TaskSpec,
    windows: LabelWindows,
    labels: NDArray[np.int64],
    generator: np.random.Generator,
    device: str,
    report: Report,
    *,
    max_updates: int | None = None,
) -> Labeller:
    """Learns the oracle's answers (cross-entropy; CODI, Eq. 5), and keeps the weights of the best validation loss.

    Args:
        settings: sizes and training.
        spec: the task.
        windows: M labelled windows, 1 or more.
        labels: (M,) their best agents, in 0..N-1.
        generator: everything random.
        device: of the training.
        report: called with (done, total, message) once an epoch.
        max_updates: ends the training sooner; None: it ends by epochs alone.
    """
    encoder = StepEncoder.fit(spec, windows)
    network = LabellerNetwork(spec, settings, generator).to(device)
    points, rewards, steps = _inputs(encoder, windows, device)
    targets = torch.from_numpy(labels).to(device)
    order = generator.permutation(len(windows))
    held = round(settings.validation_share * len(windows))
    train, validation = order[held:], torch.from_numpy(order[:held]).to(device)

    def loss_of(index: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(points[index], rewards[index], steps[index])
        return nn.functional.cross_entropy(logits, targets[index]), logits

    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    best = _Best()
    updates, loss = 0, torch.zeros(())
    for epoch in range(settings.epochs):
        report(epoch, settings.epochs, "labeller")
        shuffled = generator.permutation(train)
        for first in range(0, len(train), settings.batch_size):
            index = torch.from_numpy(shuffled[first : first + settings.batch_size]).to(device)
            optimiser.zero_grad(set_to_none=True)
            loss, _ = loss_of(index)
            loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
            optimiser.step()
            updates += 1
            if max_updates is not None and updates >= max_updates:
                break
        if held:
            with torch.no_grad():
                held_loss, logits = loss_of(validation)
            right = float((logits.argmax(dim=-1) == targets[validation]).float().mean())
            best.note(epoch, float(held_loss), right, network)
            if epoch - best.epoch >= settings.patience:
                break
        if max_updates is not None and updates >= max_updates:
            break
    if best.weights is not None:
        network.load_state_dict(best.weights)
    diagnosis = {
        "labelled": len(windows),
        "updates": updates,
        "training_loss": float(loss.detach()),
        "validation_loss": best.loss if held else None,
        "validation_accuracy": best.accuracy if held else None,
        "chance": 1.0 / spec.n_agents,
    }
    return Labeller(network, encoder, diagnosis, device)


class _Best:
    """The epoch of the smallest validation loss, and the weights it had."""

    epoch, loss, accuracy = 0, float("inf"), 0.0
    weights: dict[str, Tensor] | None = None

    def note(self, epoch: int, loss: float, accuracy: float, network: nn.Module) -> None:
        if loss < self.loss:
            self.epoch, self.loss, self.accuracy = epoch, loss, accuracy
            self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}


def _inputs(encoder: StepEncoder, windows: LabelWindows, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Points (M, H − 1, N, F), rewards (M, H − 1) and valid steps (M,), on the device."""
    steps = torch.from_numpy(windows.steps)
    return encoder.points(windows).to(device), encoder.rewards(windows).to(device), steps.to(device)
