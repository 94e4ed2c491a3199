"""`eaq`, `eaq-noq`: whole episodes diffused, and pushed towards the best return (EAQ, Oh et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from methods.base import Arrays, Run, require
from methods.diffusion.episodes.fitting import fit_episode_models
from methods.diffusion.episodes.model import EpisodeModel
from methods.diffusion.episodes.settings import EpisodeSettings
from methods.diffusion.samplers import make_sampler, sampler_within
from methods.diffusion.schedule import make_schedule
from methods.synthesis.fitted import FittedAugmenter
from methods.synthesis.report import GenerationReport
from methods.synthesis.whole_episodes import generate_episodes
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EAQConfig:
    """A network that predicts clean episodes, and how they are sampled."""

    lambda_q: float = 0.1  # λ; EAQ, Sec. 4.5 takes the best of 0.5, 0.1, 0.01 by the returns of its learners
    q_mean: str = "padded"  # over all T_max steps, zeros included (EAQ, Eq. 5); or an episode's own: "valid"
    gamma: float = 0.99  # of the reward-to-go (inferred; EAQ, Sec. 3.2 has a γ without a number)
    schedule: str = "linear"  # Ho et al. 2020 (EAQ, Sec. 4.4: "established"); or "cosine"
    diffusion_steps: int = 1_000  # K; Ho et al. 2020
    prediction: str = "data"  # what the network's output is: x_0 (EAQ, Sec. 3.2), or "velocity" (inferred option)
    width: int = 64  # of the first level (inferred)
    model_state: bool = False  # the global state has channels as well (inferred option); else a head predicts it
    updates: int = 100_000  # inferred
    batch_size: int = 32  # episodes (inferred)
    learning_rate: float = 8e-5  # inferred
    use_ema: bool = True  # sample with the averaged weights (inferred)
    head_hidden: int = 256  # as the other augmenters' (inferred)
    head_updates: int = 100_000  # of the auxiliary networks (inferred)

    copies: int = 5  # S, synthetic episodes for a real one; EAQ, Sec. 4 and Alg. 1
    sampler: str = "ddpm"  # EAQ, Sec. 4.4; also ddim, dpmpp_2m
    sampling_steps: int | None = None  # None: all K (EAQ, Sec. 4.4)

    def __post_init__(self) -> None:
        self.settings()
        make_sampler(self.sampler, make_schedule(self.schedule, self.diffusion_steps), self.sampling_steps)
        require(self.copies >= 1, "eaq", f"copies={self.copies}", "1 or more")

    def settings(self) -> EpisodeSettings:
        """The model to fit, before the budget."""
        named = {f.name: getattr(self, f.name) for f in fields(EpisodeSettings) if hasattr(self, f.name)}
        return EpisodeSettings(**named)


class EAQ(FittedAugmenter[EAQConfig, EpisodeModel]):
    """Episodes drawn whole from noise: everything in them is one signal, and no other network decides about it.

    The network predicts the clean episode, so that its reward-to-go can be compared with the best of the batch while it
    is trained. Where the signal says nothing (availability, death, global state), emission asks auxiliary networks.
    """

    Config = EAQConfig
    version = 2
    name: ClassVar[str] = "eaq"
    compute: ClassVar[str] = "episode"
    generation_fields: ClassVar[frozenset[str]] = frozenset(("copies", "sampler", "sampling_steps"))
    tiny_params: ClassVar[Mapping[str, Any]] = {
        "width": 8,
        "diffusion_steps": 4,
        "updates": 2,
        "batch_size": 4,
        "head_hidden": 8,
        "head_updates": 2,
        "sampling_steps": 2,
    }

    def __init__(self, config: EAQConfig | None = None) -> None:
        super().__init__(config)
        self._report: GenerationReport | None = None

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """All replicas in one program. Data without episodes teach nothing."""
        for member in members:
            member.forget()
        if data.n_steps:
            settings = members[0].config.settings().within(run.budget.episode)
            for member, model in zip(members, fit_episode_models(settings, data, run), strict=True):
                member._model = model

    def restored(self, arrays: Arrays, spec: TaskSpec, device: str) -> EpisodeModel:
        """See `FittedAugmenter`."""
        return EpisodeModel.from_arrays(arrays, spec, device)

    def generation_told(self) -> Mapping[str, Any] | None:
        """The report."""
        return None if self._report is None else self._report.to_json()

    def forget_generation(self) -> None:
        """There is none."""
        self._report = None

    def generate(self, data: OfflineDataset, run: Run) -> OfflineDataset:
        """New episodes; `copies` for every real one where no amount is given."""
        if run.budget.amount == 0 or not data.n_steps:
            return OfflineDataset.empty(data.spec)
        config, model = self.config, self.model_on(run.device)
        schedule = make_schedule(config.schedule, config.diffusion_steps)
        sampler = sampler_within(run.budget.episode, schedule, config.sampler, config.sampling_steps)
        self._report = GenerationReport(sampler={"name": sampler.name, "steps": len(sampler)})
        episodes = config.copies * data.n_episodes
        return generate_episodes(model, data, sampler, run, self._report, episodes=episodes, owner="eaq")
