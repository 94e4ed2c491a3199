"""The passes of stitching: values of the current episodes, jumps, walks, and which of them are better than what was."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.journal import Journal
from methods.model_based_stitching.jumps import TransitionGraph, Walks, decide, walk
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.neighbours import nearest_rows
from methods.model_based_stitching.steps import StepTensors
from methods.model_based_stitching.stitched import StitchedEpisodes, chosen_from
from methods.model_based_stitching.training import OneAdam, Stage, train
from methods.model_based_stitching.values import SlowTwin, TwinValues, twin_value_losses
from methods.objectives.td3 import td3_target
from methods.synthesis.emission import per_agent_rewards
from tasks.datasets.offline import OfflineDataset

_ROWS = 65_536  # valued at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class StitchSettings:
    """How far, how often, and how values are learned; see `MBTSConfig`."""

    radius: float
    neighbours: int
    passes: int
    accept_margin: float
    value_hidden: int
    value_updates: int
    value_batch_size: int
    value_learning_rate: float
    gamma: float
    tau: float


@dataclass(slots=True, kw_only=True)
class StitchReport:
    """What a stitching tells: neighbours, and what became of the candidates in every pass."""

    radius: float = 0.0
    mean_neighbours: float = 0.0
    alone: float = 0.0
    full: float = 0.0
    passes: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values: `alone` and `full` are shares of rows without neighbours and with as many as are allowed."""
        return {
            "radius": self.radius,
            "mean_neighbours": self.mean_neighbours,
            "rows_without_neighbours": self.alone,
            "rows_at_the_neighbour_limit": self.full,
            "passes": self.passes,
        }


class Stitching:
    """Stitches one dataset with one fitted model.

    Args:
        settings: see `StitchSettings`.
        model: on the run's device.
        data: what it was fitted on.
        run: one seed. Its checkpoint keeps the values of every pass, which take the longest; the rest is done again.
    """

    def __init__(self, settings: StitchSettings, model: StitchingModel, data: OfflineDataset, run: Run) -> None:
        self._settings, self._model, self._data = settings, model, data
        self._run, self._journal = run, Journal(run, settings.passes * settings.value_updates)
        self._steps = StepTensors.of(data, model.scaling, run.device)
        self.original = self.final = StitchedEpisodes.original(data)
        self.report = StitchReport(radius=settings.radius)

    def passes(self) -> tuple[StitchedEpisodes, NDArray[np.bool_]]:
        """The episodes after the last pass, and which of them (E,) differ from the original."""
        neighbours = self._neighbours()
        episodes, changed = self.original, np.zeros(self._data.n_episodes, dtype=np.bool_)
        for number in range(self._settings.passes):
            values, loss = self.values(episodes, number)
            graph = TransitionGraph.of(episodes, len(self._data.observations))
            jumps = decide(graph, neighbours, self._model, self._steps, values, self._quietly("looking for jumps"))
            walks = walk(episodes, graph, jumps, self._data.spec.episode_limit)
            new = self._decoded(episodes, walks, f"pass{number}")
            accepted = self._better(new, episodes)
            self.report.passes.append(
                {
                    "value_loss": loss,
                    "candidates_of_higher_value": jumps.better,
                    "of_these_within_reach": jumps.reached,
                    "transitions_that_jump": int((jumps.target >= 0).sum()),
                    "episodes_that_jump": int(((walks.source < 0) & _steps_of(walks)).any(axis=1).sum()),
                    "episodes_accepted": int(accepted.sum()),
                }
            )
            episodes, changed = chosen_from(episodes, new, accepted), changed | accepted
        self.final = episodes
        return episodes, changed

    def drawn_again(self, owners: NDArray[np.int64], number: int) -> tuple[StitchedEpisodes, NDArray[np.bool_]]:
        """Episodes `owners` of those after the last pass, with fresh actions and rewards at all synthetic steps.

        And which of them are still better by the margin than the original episodes that they go back to; `number` is
        that of the copy.
        """
        chosen = self.final.take(owners)
        steps = np.flatnonzero(chosen.synthetic)
        owner = np.repeat(np.arange(chosen.n_episodes), chosen.lengths)[steps]
        latents = self._latents(owner, steps - chosen.starts[owner], f"copy{number}")
        actions, team = self._model.actions_and_rewards(
            self._steps, chosen.first_rows()[steps], chosen.second_rows()[steps], latents
        )
        again = chosen.with_steps(steps, actions, per_agent_rewards(team, self._data.spec))
        return again, self._better(again, self.original.take(owners))

    def values(self, episodes: StitchedEpisodes, number: int) -> tuple[NDArray[np.float32], float]:
        """min(V¹, V²) of all rows (M,), trained from scratch on the current episodes, and the loss at the end."""
        settings, run, rows = self._settings, self._run, self._steps.rows
        first, second = (torch.from_numpy(r).to(run.device) for r in (episodes.first_rows(), episodes.second_rows()))
        team = self._data.spec.fold_rewards(episodes.rewards).astype(np.float32)
        ends = np.zeros(len(team), dtype=np.bool_)
        ends[episodes.starts[1:] - 1] = episodes.terminal
        reward, terminal = torch.from_numpy(team).to(run.device), torch.from_numpy(ends).to(run.device)
        horizon = 1 / (1 - settings.gamma * (1 - float(ends.mean())))  # the value of a constant reward of 1
        mean, scale = float(team.mean()) * horizon, (float(team.std()) or 1.0) * horizon
        purpose = f"mbts/value/{number}"
        module = TwinValues(
            rows.shape[1], settings.value_hidden, [run.generator(f"{purpose}/weights")], mean, scale
        ).to(run.device)
        target = copy.deepcopy(module)

        def losses(index: Tensor, noise: Tensor | None) -> Tensor:
            with torch.no_grad():
                following = target(rows[second[index]]).transpose(0, 1)  # (2, G, B)
                wanted = td3_target(reward[index], terminal[index], following, settings.gamma)
            return twin_value_losses(module(rows[first[index]]), wanted, scale)

        stage = Stage(
            name=f"value of pass {number + 1} of {settings.passes}",
            module=module,
            descent=OneAdam(module, losses, settings.value_learning_rate),
            generators=[run.generator(f"{purpose}/batches")],
            steps=[np.arange(len(team))],
            updates=settings.value_updates,
            batch_size=settings.value_batch_size,
            watcher=SlowTwin(module, target, settings.tau),
        )
        trained = train(stage, self._journal, number * settings.value_updates, run.device)
        with torch.no_grad():
            for name, parameter in module.named_parameters():  # those of a pass that a killed process finished
                parameter.copy_(torch.from_numpy(trained.weights[name]))
            parts = [module(part[None])[0].amin(dim=0).cpu().numpy() for part in torch.split(rows, _ROWS)]
        return np.concatenate(parts), float(trained.loss[0])

    def _better(self, new: StitchedEpisodes, old: StitchedEpisodes) -> NDArray[np.bool_]:
        spec = self._data.spec
        return better_by_margin(new.returns(spec), old.returns(spec), self._settings.accept_margin)

    def _neighbours(self) -> NDArray[np.int32]:
        settings, rows = self._settings, self._model.scaling.rows(self._data)
        neighbours = nearest_rows(
            rows,
            settings.radius,
            settings.neighbours,
            device=self._run.device,
            report=self._quietly("looking for neighbours"),
        )
        count = (neighbours >= 0).sum(axis=1)
        self.report.mean_neighbours = float(count.mean())
        self.report.alone, self.report.full = float((count == 0).mean()), float((count == settings.neighbours).mean())
        return neighbours

    def _quietly(self, message: str) -> Callable[[int, int], None]:
        """A report at most once a second."""
        last = [0.0]

        def report(done: int, total: int) -> None:
            if time.monotonic() - last[0] >= 1.0:
                self._run.report(done, total, message)
                last[0] = time.monotonic()

        return report

    def _decoded(self, episodes: StitchedEpisodes, walks: Walks, label: str) -> StitchedEpisodes:
        """The walks as episodes: what was kept, and actions and rewards from models at jumps."""
        inside = _steps_of(walks)  # (E, L)
        source = walks.source[inside]  # (S',)
        owner, step = np.nonzero(inside)
        jumps = np.flatnonzero(source < 0)
        starts = np.concatenate([[0], np.cumsum(walks.lengths)]).astype(np.int64)
        first, second = walks.rows[:, :-1][inside], walks.rows[:, 1:][inside]
        latents = self._latents(owner[jumps], step[jumps], label)
        actions, team = self._model.actions_and_rewards(self._steps, first[jumps], second[jumps], latents)
        kept = StitchedEpisodes(
            rows=walks.rows[np.arange(walks.rows.shape[1]) <= walks.lengths[:, None]],
            actions=np.asarray(episodes.actions)[source],
            rewards=np.asarray(episodes.rewards)[source],
            synthetic=episodes.synthetic[source] | (source < 0),
            terminal=walks.terminal,
            won=walks.won,
            starts=starts,
        )
        return kept.with_steps(jumps, actions, per_agent_rewards(team, self._data.spec))

    def _latents(self, episode: NDArray[np.int64], step: NDArray[np.int64], label: str) -> NDArray[np.float32]:
        """(C, Z) standard normal, determined by seed, label, episode and step alone."""
        latents = np.empty((len(episode), self._model.latent), dtype=np.float32)
        for e in np.unique(episode):
            own = slice(*np.searchsorted(episode, [e, e + 1]))  # episodes ascend
            generator = self._run.generator(f"mbts/latents/{label}/{e}")
            drawn = generator.standard_normal((int(step[own].max()) + 1, latents.shape[1]), dtype=np.float32)
            latents[own] = drawn[step[own]]
        return latents


def better_by_margin(new: NDArray[np.float64], old: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """R_new > R_old + margin |R_old| (MBTS, whose margin is 0.1)."""
    better: NDArray[np.bool_] = new > old + margin * np.abs(old)
    return better


def _steps_of(walks: Walks) -> NDArray[np.bool_]:
    """(E, L) what is no padding."""
    inside: NDArray[np.bool_] = np.arange(walks.source.shape[1]) < walks.lengths[:, None]
    return inside
