"""`codi`, `codi-no-com`, `codi-priv`: diffusion composed of single agents' good play (CODI, Li et al. 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from methods.base import Arrays, Run, require
from methods.data.windows import WindowIndex, require_finite
from methods.diffusion.fitting import fit_segment_models
from methods.diffusion.model import Composition, SegmentModel
from methods.diffusion.samplers import Sampler
from methods.diffusion.settings import EMISSION_HEADS, SegmentSettings
from methods.labelling.endpoint import model_from
from methods.labelling.labeller import LabellerSettings
from methods.labelling.oracle import resolve_oracle
from methods.labelling.stage import LabellingSettings, privileged_labels, quality_labels
from methods.synthesis.composed_policy import WEIGHTS, ComposedPolicy, agents_composition, team_composition
from methods.synthesis.model_policy import Draw
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_augmenter import STITCH_GENERATION_FIELDS, STITCH_TINY, StitchAugmenter, StitchConfig
from methods.synthesis.stitch_policy import FailureRule
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

RESAMPLES = ("window", "suffix")


@dataclass(frozen=True, slots=True, kw_only=True)
class CODIConfig(StitchConfig):
    """The appendix with hyper-parameters is not public: what the paper's text lacks is as in MADiTS, or inferred."""

    gamma: float = 1.0  # the return-to-go is not discounted; CODI, before Eq. 6
    target: float = 1.1  # of the first window, in units of R_s (inferred: "a high RTG value", Sec. 3.2)

    oracle: str = "auto"  # "heuristic" or "llm" (CODI, Sec. 3.1); "auto": llm where an endpoint is configured
    model: str = ""  # of the oracle llm; "": AUGMARL_LLM_MODEL, else gpt-4o-mini (CODI, Sec. 3.1)
    labelled_share: float = 0.1  # of the windows that the oracle sees; CODI, Sec. 3.1: less than 10%
    max_labels: int = 5_000  # windows that the oracle sees at most (inferred)
    max_tokens: int = 20_000_000  # of the oracle llm, read and written (inferred)
    labeller: str = "joint"  # a GRU over all agents' steps; "per_agent": one shared by the agents (inferred)
    labeller_hidden: int = 128  # of the GRU and of the perceptron (inferred)
    labeller_epochs: int = 50  # at most; it stops early (inferred)
    label_mode: str = "soft"  # z is the labeller's softmax; CODI, Sec. 3.1; "hard": one-hot
    single_keep: float = 0.0  # share of windows that keep exactly one label, beyond what the dropout leaves (inferred)

    composition: bool = True  # CODI, Eq. 8; False: z = 1 for all agents at once, "w/o Com." (CODI, Sec. 4.1)
    comp_weights: str = "shared"  # w_i = g / n (inferred); "per_agent": w_i = g; "decoupled": see label_weight
    label_weight: float = 0.6  # w_z of eps_u + g (eps_R - eps_u) + w_z sum_i (eps_i - eps_R), if decoupled (inferred)
    max_resample: int = 3  # new draws of one window before the episode is abandoned (inferred)
    resample: str = "window"  # a window is kept whole or not at all; "suffix": its valid prefix stays (inferred)

    def __post_init__(self) -> None:
        super(CODIConfig, self).__post_init__()  # the bare form does not know a class with slots
        self._resolve_oracle()
        require(self.labeller in ("joint", "per_agent"), "codi", f"labeller={self.labeller}", "joint or per_agent")
        require(self.label_mode in ("soft", "hard"), "codi", f"label_mode={self.label_mode}", "soft or hard")
        require(self.comp_weights in WEIGHTS, "codi", f"comp_weights={self.comp_weights}", " or ".join(WEIGHTS))
        require(self.resample in RESAMPLES, "codi", f"resample={self.resample}", " or ".join(RESAMPLES))
        require(0 < self.labelled_share <= 1, "codi", f"labelled_share={self.labelled_share}", "a number in (0, 1]")
        for name in ("max_labels", "max_tokens", "labeller_hidden", "labeller_epochs"):
            require(getattr(self, name) >= 1, "codi", f"{name}={getattr(self, name)}", "1 or more")
        require(self.max_resample >= 0, "codi", f"max_resample={self.max_resample}", "0 or more")

    def _resolve_oracle(self) -> None:
        """Names the oracle that `auto` means here, and its model: a config says what was done, not what might be."""
        resolved = resolve_oracle(self.oracle)
        require(resolved != "privileged", "codi", "oracle=privileged", "heuristic or llm; codi-priv has these labels")
        object.__setattr__(self, "oracle", resolved)
        if resolved == "llm":
            object.__setattr__(self, "model", self.model or model_from())
        require(resolved == "llm" or not self.model, "codi", f"model={self.model}", "oracle=llm beside it")


CODI_GENERATION_FIELDS = STITCH_GENERATION_FIELDS | {
    "composition",
    "comp_weights",
    "label_weight",
    "max_resample",
    "resample",
}

CODI_TINY: Mapping[str, Any] = {
    **STITCH_TINY,
    "oracle": "heuristic",
    "labeller_hidden": 8,
    "labeller_epochs": 1,
    "delta": 1e9,
}


class CODI(StitchAugmenter[CODIConfig]):
    """Episodes whose windows are drawn under "agent 1 plays well", …, "agent n plays well" at once.

    An oracle says for some windows which agent plays best, a GRU learns it and labels all windows, and the diffusion
    model is conditioned on the return-to-go and these labels. When generating, the conditions of the single agents
    are composed, since the data hardly show all of them playing well (Eq. 8). The return-to-go starts high and falls
    by the predicted rewards; a window that breaks the learned dynamics is drawn anew, and after too many draws the
    episode is abandoned (Sec. 3.3).
    """

    Config = CODIConfig
    version = 2
    name: ClassVar[str] = "codi"
    generation_fields: ClassVar[frozenset[str]] = CODI_GENERATION_FIELDS
    tiny_params: ClassVar[Mapping[str, Any]] = CODI_TINY

    def __init__(self, config: CODIConfig | None = None) -> None:
        super().__init__(config)
        self._labelling: Mapping[str, Any] = {}

    # -- fitting -------------------------------------------------------------------------------------------------

    def settings(self, spec: TaskSpec) -> SegmentSettings:
        """Labels beside the return; joint models of actions, dynamics and rewards, the last of (o, a, o') (Eq. 9)."""
        return replace(
            self.shared_settings((*EMISSION_HEADS, "dynamics")),
            attention=self.config.attention,
            labels=True,
            label_single_keep=self.config.single_keep,
            inverse_scope="joint",
            dynamics_scope="joint",
            reward_next=True,
        )

    def labels(self, index: WindowIndex, run: Run, replica: int) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
        """Label vectors z of all windows, (W, N), and what the labelling tells."""
        config, budget = self.config, run.budget.diffusion
        settings = LabellingSettings(
            oracle=config.oracle,
            model=config.model,
            share=config.labelled_share,
            max_labels=config.max_labels,
            max_tokens=config.max_tokens,
            hard=config.label_mode == "hard",
            max_updates=config.head_updates if budget.head_updates is None else budget.head_updates,
            labeller=LabellerSettings(
                scope=config.labeller, hidden=config.labeller_hidden, epochs=config.labeller_epochs
            ),
        )
        return quality_labels(settings, index, run, replica)

    @classmethod
    def fit_together(cls, members: Sequence[Self], data: OfflineDataset, run: Run) -> None:
        """Labels for each replica, then all models in one program. Data without episodes teach nothing."""
        for member in members:
            member.forget()
            member._labelling = {}
        if not data.n_steps:
            return
        require_finite(data)
        settings = members[0].settings(data.spec).within(run.budget.diffusion)
        index = WindowIndex(data, settings.horizon, padded=settings.pad_windows)
        labels = []
        for replica, member in enumerate(members):
            z, member._labelling = member.labels(index, run, replica)
            labels.append(z)
        models = fit_segment_models(settings, data.without_privileged(), run, labels)
        for member, model in zip(members, models, strict=True):
            member._model = model

    def load_state(self, arrays: Arrays, spec: TaskSpec) -> None:
        """Takes the model back; what the labelling told is kept with the artefact."""
        self._labelling = {}
        super().load_state(arrays, spec)

    def diagnosis(self) -> Mapping[str, Any]:
        """Under `labelling` the oracle, its counts and the labeller's accuracy, beside what the model tells."""
        told = super().diagnosis()
        return {"labelling": dict(self._labelling), **told} if self._labelling else told

    # -- generating ----------------------------------------------------------------------------------------------

    def composition(self, n_agents: int) -> Composition:
        """What windows are conditioned on: each agent playing well, or the team as a whole."""
        config = self.config
        if not config.composition:
            return team_composition(n_agents, config.guidance)
        return agents_composition(config.comp_weights, n_agents, config.guidance, config.label_weight)

    def policy(
        self, model: SegmentModel, data: OfflineDataset, sampler: Sampler, report: GenerationReport
    ) -> ComposedPolicy:
        """Composed guidance, whole windows unless `resample=suffix`."""
        config = self.config
        return ComposedPolicy(
            model,
            Draw(sampler=sampler, target=config.target, guidance=config.guidance),
            composition=self.composition(model.spec.n_agents),
            whole_windows=config.resample == "window",
            threshold=report.threshold,
            metric=config.metric,
            failures=FailureRule(in_a_row=config.max_resample + 1),  # the first draw is no new one
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegedCODIConfig(CODIConfig):
    """CODI with labels from the hidden column; what concerns oracles and labellers has no effect."""

    oracle: str = "privileged"  # ground-truth labels (CODI, Sec. 4.1, "w Pri.")

    def _resolve_oracle(self) -> None:
        """There is nothing to resolve."""
        require(self.oracle == "privileged", "codi-priv", f"oracle={self.oracle}", "privileged")
        require(not self.model, "codi-priv", f"model={self.model}", "none: no model is asked")


class PrivilegedCODI(CODI):
    """CODI told by the data's hidden column who acts most like an expert: 1 for them, 0 for the others.

    A reference, not a rival: what the labels of an oracle could bring at best.
    """

    Config = PrivilegedCODIConfig
    version = 2
    name: ClassVar[str] = "codi-priv"
    privileged: ClassVar[bool] = True
    tiny_params: ClassVar[Mapping[str, Any]] = {**CODI_TINY, "oracle": "privileged"}

    def labels(self, index: WindowIndex, run: Run, replica: int) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
        """Label vectors z of all windows, (W, N), from the hidden column."""
        return privileged_labels(index, run)
