"""`omiga`: implicit global-to-local value regularisation (Wang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from methods.algorithms.weighted_cloning import WeightedCloningLearner
from methods.base import Run
from methods.learners.omiga.config import EPISODES, TRANSITIONS, OMIGAConfig
from methods.learners.omiga.trainer import OMIGATrainer, Values
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class OMIGA(WeightedCloningLearner[OMIGAConfig]):
    """Q_tot and V_tot are one linear mix with the same weights; V is learned in-sample, policies by weighted cloning.

    z_i = w̄_i / α (Q̄_i − V_i); L_V = mean [exp(z − M) + exp(−M) w̄ V / α]; L_π = −mean exp(z) log π;
    L_Q = mean (Σ w Q + b − y)² with y = r + γ (1 − e) (Σ w̄' V̄' + b̄'). The team's reward is the task's. All networks are
    shared by the agents, which are told apart by their number; policies see single observations.

    With `memory=gru` (discrete actions, whole episodes; OffPyMARL) policies are recurrent, and Q_i and V_i, still
    perceptrons of one step, see the last action as they do. Means and M are over valid steps.
    """

    Config = OMIGAConfig
    version = 2
    name: ClassVar[str] = "omiga"
    least_scale: ClassVar[float] = 1e-6  # also up: z is clipped at ±10, so that values must be of the order of α

    def memory(self, spec: TaskSpec) -> str:
        """The config's."""
        return self.config.memory

    def policy_width(self, spec: TaskSpec) -> int:
        """The config's, of the policy that it asks for."""
        return self.config.gru_hidden if self.config.memory == "gru" else self.config.hidden

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's."""
        own = EPISODES if self.config.memory == "gru" else TRANSITIONS
        return self.config.updates, self.config.batch_size or own

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> OMIGATrainer:
        """Reports `q_loss`, `v_loss`, `policy_loss`, and `clipped`, the share of z at its limits."""
        spec, agent = data[0].spec, self.first_agent(data, run, self.config.normalise)
        values = Values(spec, self.config, [run.generator("omiga/values", r) for r in range(len(data))])
        return OMIGATrainer(self.config, spec, agent, values.to(run.device))
