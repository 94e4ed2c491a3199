"""`mbts`: model-based trajectory stitching of joint trajectories (MBTS, Hepburn & Montana 2022; MADiTS, Sec. 5.1)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays, Augmenter, Run, TransitionBudget, UnsupportedError, added, require
from methods.model_based_stitching.fitting import ModelSettings, fit_models
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.passes import Stitching, StitchReport, StitchSettings
from methods.model_based_stitching.per_agent import TeamStitching, agent_data, agent_runs, agent_spec
from methods.model_based_stitching.reward_training import FORMS
from methods.model_based_stitching.stitched import StitchedEpisodes, together
from methods.synthesis.emit import until_amount
from tasks.common.errors import UsageError
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

_MANY = 900_000  # transitions from which the inverse model is wide; MBTS' repository, CVAE.py
_WIDE, _NARROW = 750, 128  # MBTS' repository, CVAE.py


@dataclass(frozen=True, slots=True, kw_only=True)
class MBTSConfig:
    """Numbers of MBTS' repository, which is for one agent; MADiTS and CODI give none."""

    radius: float | None = None  # in standardised joint observations; None: calibrated (inferred)
    neighbours: int = 64  # of a row, the nearest ones within the radius (inferred)
    passes: int = 5  # BC_loop.py: k = -1 .. 3
    accept_margin: float = 0.1  # TrajectoryStitching.py
    fresh_copies: int = 20  # of a stitched episode, with new actions, before episodes repeat (inferred)

    members: int = 7  # Train_DM.py
    kept_members: int = 5  # Train_DM.py
    density_hidden: int = 200  # model_trainer.py
    density_epochs: int = 1_000  # model_trainer.py; a protocol's number of updates takes its place
    patience: int = 50  # epochs; model_trainer.py
    density_batch_size: int = 256  # model_trainer.py
    density_learning_rate: float = 3e-4  # model_trainer.py

    inverse_hidden: int | None = None  # None: 750, or 128 below 900,000 transitions; CVAE.py
    inverse_updates: int = 400_000  # CVAE.py
    inverse_batch_size: int = 100  # CVAE.py
    inverse_learning_rate: float = 1e-4  # CVAE.py

    reward_hidden: int = 512  # the repository's perceptron
    reward_updates: int = 500_000  # the repository's perceptron
    reward_batch_size: int = 256  # inferred: that of the repository's WGAN
    reward_learning_rate: float = 1e-4  # inferred: that of the repository's WGAN
    reward: str = added("mlp")  # or "wgan"; inferred: the repository's default, whose README trains the WGAN
    gan_updates: int = added(100_000)  # of the WGAN, in place of reward_updates; WGAN_Reward.py
    gan_latent: int = added(2)  # WGAN_Reward.py
    gan_critic_updates: int = added(5)  # steps of its critic an update; WGAN_Reward.py
    gan_penalty: float = added(1e-4)  # λ of λ |θ|² of its critic; WGAN_Reward.py

    scope: str = added("joint")  # MADiTS, Sec. 5.1; "per_agent": MBTS once for each agent

    value_hidden: int = 256  # Value_net.py
    value_updates: int = 1_000_000  # Value_net.py; in every pass
    value_batch_size: int = 256  # Value_net.py
    value_learning_rate: float = 3e-4  # Value_net.py
    gamma: float = 0.99  # Value_net.py
    tau: float = 0.005  # Value_net.py

    def __post_init__(self) -> None:
        counts = [f.name for f in fields(self) if type(f.default) is int] + ["inverse_hidden"]
        for name in counts:
            value, least = getattr(self, name), 0 if name == "fresh_copies" else 1
            whole = value is None if name == "inverse_hidden" else False
            require(whole or (type(value) is int and value >= least), "mbts", f"{name}={value}", f"{least} or more")
        radius = self.radius
        fits = radius is None or (isinstance(radius, int | float) and radius >= 0)
        require(fits, "mbts", f"radius={radius}", "a distance, 0 or more")
        require(0 <= self.accept_margin < float("inf"), "mbts", f"accept_margin={self.accept_margin}", "0 or more")
        chosen = f"kept_members={self.kept_members} of members={self.members}"
        require(self.kept_members <= self.members, "mbts", chosen, "no more than there are")
        require(0 <= self.gamma < 1, "mbts", f"gamma={self.gamma}", "0 or more and less than 1")
        require(0 < self.tau <= 1, "mbts", f"tau={self.tau}", "more than 0, at most 1")
        require(self.scope in ("joint", "per_agent"), "mbts", f"scope={self.scope}", "joint or per_agent")
        require(self.reward in FORMS, "mbts", f"reward={self.reward}", "mlp or wgan")
        penalty = self.gan_penalty
        require(0 <= penalty < float("inf"), "mbts", f"gan_penalty={penalty}", "a finite number, 0 or more")
        for name in ("density_learning_rate", "inverse_learning_rate", "reward_learning_rate", "value_learning_rate"):
            require(getattr(self, name) > 0, "mbts", f"{name}={getattr(self, name)}", "a rate above 0")


class MBTS(Augmenter[MBTSConfig]):
    """Episodes of the data that were led over to better ones.

    At each transition (o, a, r, o') of an episode, other next observations of the data are candidates: those that
    follow a neighbour of o, and neighbours of o'. Among those that every density model finds likelier after o than
    they find o' on average, the one of the highest value is taken, if that is above the value of o'; an inverse model
    gives the joint action, a reward model the reward. From there the walk goes on. It takes the place of the episode if
    its return is better by the margin, and the next pass begins from what there is then, with new values.

    With `scope=per_agent` all this is done for each agent by itself, whose episodes then stand side by side although
    they never happened together.
    """

    Config = MBTSConfig
    version = 1
    trains: ClassVar[bool] = True
    compute: ClassVar[str] = "transition"
    generation_fields: ClassVar[frozenset[str]] = frozenset(
        (
            *("radius", "neighbours", "passes", "accept_margin", "fresh_copies", "gamma", "tau"),
            *("value_hidden", "value_updates", "value_batch_size", "value_learning_rate"),
        )
    )

    def __init__(self, config: MBTSConfig | None = None) -> None:
        super().__init__(config)
        self._models: list[StitchingModel] = []  # one, or one an agent
        self._told: dict[str, Any] | None = None

    @classmethod
    def tiny(cls, params: Mapping[str, Any] | None = None) -> Self:
        """Narrow networks, trained for a moment; everything is a neighbour."""
        small = {f"{model}_hidden": 8 for model in ("density", "inverse", "reward", "value")}
        few = {f"{model}_updates": 8 for model in ("inverse", "reward", "gan", "value")}
        other = {"members": 3, "kept_members": 2, "density_epochs": 4, "passes": 2, "radius": 1e3, "neighbours": 16}
        return cls.from_params({**small, **few, **other, "density_batch_size": 16, **(params or {})})

    def fit(self, data: OfflineDataset, run: Run) -> None:
        """Trains densities, inverse and reward model, and calibrates the radius."""
        self.fit_together([self], data, run)

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """All replicas in one program. Data without episodes teach nothing."""
        for member in members:
            member._models, member._told = [], None
        if not data.n_steps:
            return
        config = members[0].config
        inverse_hidden = config.inverse_hidden or (_WIDE if data.n_steps >= _MANY else _NARROW)
        named = {f.name: getattr(config, f.name) for f in fields(ModelSettings) if hasattr(config, f.name)}
        if config.reward == "wgan":
            named["reward_updates"] = config.gan_updates
        settings = ModelSettings(**{**named, "density_updates": None, "inverse_hidden": inverse_hidden})
        budgeted, parts = settings.within(run.budget.transition), [(data, run)]
        if config.scope == "per_agent":
            parts = [(agent_data(data, own.agent), own) for own in agent_runs(run, data.spec.n_agents)]
        for part, own in parts:
            for member, model in zip(members, fit_models(budgeted, part, own), strict=True):
                member._models.append(model)

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """Stitched episodes, as many transitions as the data have where no amount is given (1:1, as in MADiTS).

        Raises:
            UnsupportedError: if no episode could be made better; with what there was to choose from.
        """
        wanted = data.n_steps if run.budget.amount is None else run.budget.amount
        if wanted == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        if not self._models:
            raise UsageError("mbts: nothing was fitted. Call `fit` or `load_state` first.")
        self._models = [model.on(run.device) for model in self._models]
        data, began = data.without_privileged(), time.monotonic()
        settings = [self._settings(model, run.budget.transition) for model in self._models]
        stitching: Stitching | TeamStitching
        if self.config.scope == "per_agent":
            stitching = TeamStitching(settings, self._models, data, run)
        else:
            stitching = Stitching(settings[0], self._models[0], data, run)
        episodes, changed = stitching.passes()
        owners = np.flatnonzero(changed)
        self._told = stitching.report.to_json() | {"changed_episodes": len(owners)}
        if not len(owners):
            raise UnsupportedError(nothing_better(stitching.report, data, self.config))
        chosen = self._enough(stitching, episodes.take(owners), owners, wanted, run)
        self._told["seconds"] = round(time.monotonic() - began, 3)
        return chosen.dataset(data)

    def _settings(self, model: StitchingModel, budget: TransitionBudget) -> StitchSettings:
        config = self.config
        named = {f.name: getattr(config, f.name) for f in fields(StitchSettings)}
        radius = model.numbers["radius"] if config.radius is None else float(config.radius)
        fixed = {
            "value_hidden": budget.width,
            "value_updates": budget.updates,
            "value_batch_size": budget.batch_size,
            "value_learning_rate": budget.learning_rate,
        }
        given = {name: value for name, value in fixed.items() if value is not None}
        return StitchSettings(**{**named, "radius": radius, **given})

    def _enough(
        self,
        stitching: Stitching | TeamStitching,
        episodes: StitchedEpisodes,
        owners: NDArray[np.int64],
        wanted: int,
        run: Run,
    ) -> StitchedEpisodes:
        """A random part of the changed episodes; or all, copies with fresh actions, and at last repetitions."""
        choose = run.generator("mbts/choice")
        parts, steps, copies = [episodes], int(episodes.starts[-1]), 0
        while steps < wanted and copies < self.config.fresh_copies:
            copies += 1
            run.report(steps, wanted, "drawing actions again")
            again, better = stitching.drawn_again(owners, copies)
            parts.append(again.take(np.flatnonzero(better)))
            steps += int(parts[-1].starts[-1])
        # Complete parts, and of the last one a random choice.
        before = together(parts[:-1]) if len(parts) > 1 else episodes.take(owners[:0])
        missing, last = wanted - int(before.starts[-1]), parts[-1]
        order = choose.permutation(last.n_episodes)
        if last.starts[-1] >= missing:
            order = np.sort(order[: until_amount(last.lengths[order], missing)])
        found = together([before, last.take(order)])
        repeated, missing = np.zeros(0, dtype=np.int64), wanted - int(found.starts[-1])
        if missing > 0:  # every episode has a step or more
            repeated = choose.integers(found.n_episodes, size=missing)
            repeated = repeated[: until_amount(found.lengths[repeated], missing)]
        assert self._told is not None  # set by the caller
        self._told |= {"fresh_copies": copies, "repeated_episodes": len(repeated)}
        return found.take(np.concatenate([np.arange(found.n_episodes), repeated])) if len(repeated) else found

    def state(self) -> Arrays:
        """The models."""
        if self.config.scope == "joint":
            return self._models[0].arrays() if self._models else {}
        named = ((f"agent{i}/", model.arrays()) for i, model in enumerate(self._models))
        return {f"{prefix}{name}": array for prefix, arrays in named for name, array in arrays.items()}

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes them back, on the CPU; `generate` moves them to the device of its run."""
        self._told, self._models = None, []
        if arrays and self.config.scope == "joint":
            self._models = [StitchingModel.from_arrays(arrays, spec, "cpu")]
        elif arrays:
            for i in range(spec.n_agents):
                prefix = f"agent{i}/"
                own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
                self._models.append(StitchingModel.from_arrays(own, agent_spec(spec, i), "cpu"))

    def diagnosis(self) -> Mapping[str, Any]:
        """What the models tell of their fit, and under `generation` what became of the passes."""
        if self.config.scope == "joint":
            told = dict(self._models[0].diagnosis) if self._models else {}
        else:
            told = {"agents": [dict(model.diagnosis) for model in self._models]}
        return told if self._told is None else {**told, "generation": self._told}


def nothing_better(report: StitchReport, data: OfflineDataset, config: MBTSConfig) -> str:
    """Why stitching gave nothing, and what to do."""
    higher = sum(told["candidates_of_higher_value"] for told in report.passes)
    reached = sum(told["of_these_within_reach"] for told in report.passes)
    walked = sum(told["episodes_that_jump"] for told in report.passes)
    if report.mean_neighbours == 0:
        advice = "No row has a neighbour: raise `radius`"
    elif not reached:
        advice = (
            "No candidate is likelier than what did follow: raise `radius` or `neighbours`, or record more episodes"
        )
    else:
        advice = "No new episode is better by the margin: lower `accept_margin`, or train the values for longer"
    return (
        f"mbts: no episode of {data.spec.id} could be made better in {config.passes} passes. Within radius "
        f"{report.radius:.4g} a row has {report.mean_neighbours:.3g} neighbours (at most {config.neighbours}); "
        f"{higher} candidates had a higher value, {reached} of these were within reach, {walked} episodes jumped, none "
        f"was accepted. {advice}."
    )
