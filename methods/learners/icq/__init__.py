"""`icq`: implicit constraint Q-learning for teams, MA-ICQ (Yang et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from methods.algorithms.joint import state_size
from methods.algorithms.training import pretrain
from methods.algorithms.weighted_cloning import WeightedCloningLearner
from methods.base import Run
from methods.data.batches import joint_transitions
from methods.data.sequences import SequenceBatch
from methods.learners.icq.behaviour import BehaviourTrainer, ClonedBehaviour, has_lone_steps
from methods.learners.icq.config import ICQConfig
from methods.learners.icq.trainer import ICQTrainer
from methods.learners.icq.view import single_steps
from methods.networks.agents import MLPAgent
from methods.networks.icq_critic import ICQCritic
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec


class ICQ(WeightedCloningLearner[ICQConfig]):
    """Values of recorded actions alone, Q_tot = Σ_i k_i(s) Q_i; policies by cloning, weighted by advantage.

    L_Q = ⟨(Q_tot(s, a) − G)²⟩ with G the λ-return of g = w Q̄_tot(s', a'), a' as recorded, w = n softmax_b(Q̄_tot / β);
    for single transitions G = r + γ (1 − e) g. L_π = −⟨k_i ω_i log π_i(a_i)⟩ with ω_i = n softmax_b(A_i / α) and
    A_i = Q_i(a_i) − E_π Q_i, or − Q_i(mean action) where actions are continuous. The softmax runs over the batch, along
    episodes at each time by itself. Networks are shared by the agents, which are told apart by their number.

    Discrete: recurrent policies on whole episodes, or with `memory=none` on single transitions, as always where
    actions are continuous. Critics have no memory. One critic step a batch (ICQ's repository: one a time step).

    A step at a time limit or a cut has no recorded a': it has weight 0 everywhere, and the return of the step before
    it ends with its value. Independent transitions, which augmenters return, have none either: without memory their a'
    is drawn anew in every update from β(a | o'), a clone of the data's behaviour that is trained first, on
    ⟨−log β(a_i | o_i)⟩ and with the policies' network, rate and batches (inferred).
    """

    Config = ICQConfig
    version = 3
    name: ClassVar[str] = "icq"

    def memory(self, spec: TaskSpec) -> str:
        """The config's, or that of the kind of task."""
        return self.config.sizes(spec).memory

    def policy_width(self, spec: TaskSpec) -> int:
        """The config's, or that of the kind of task."""
        return self.config.sizes(spec).hidden

    def own_budget(self, spec: TaskSpec) -> tuple[int, int]:
        """The config's, or those of the kind of task."""
        return self.config.updates, self.config.sizes(spec).batch_size

    def new_trainer(self, data: Sequence[OfflineDataset], run: Run) -> ICQTrainer:
        """Reports `critic_loss`, `policy_loss`, `used` and `effective`; see `ICQTrainer.update`."""
        spec, agent = data[0].spec, self.first_agent(data, run, self.config.normalise)
        critic = ICQCritic(
            spec,
            (state_size(spec.n_agents, spec.obs_dim, spec.state_dim), self.config.sizes(spec).critic_hidden),
            self.config.mixer_hidden,
            [run.generator("icq/critic", r) for r in range(len(data))],
        )
        cloned = not self.recurrent(spec) and has_lone_steps(data)
        behaviour = self.cloned_behaviour(data, run) if cloned else None
        return ICQTrainer(self.config, spec, agent, critic.to(run.device), behaviour)

    def cloned_behaviour(self, data: Sequence[OfflineDataset], run: Run) -> ClonedBehaviour:
        """Who acted in the data, R of them, all trained together."""
        config, sizes, replicas = self.config, self.config.sizes(data[0].spec), range(len(data))
        agent = self.first_agent(data, run, config.normalise, "behaviour")
        assert isinstance(agent, MLPAgent)  # without memory
        drawing = [run.generator("icq/next-actions", r) for r in replicas]
        behaviour = ClonedBehaviour(agent, data[0].spec, config.density, drawing)
        learned = config.updates if run.budget.updates is None else run.budget.updates
        updates = learned if config.behaviour_updates is None else config.behaviour_updates
        batches = joint_transitions(
            data,
            [run.generator("icq/behaviour-batches", r) for r in replicas],
            batch_size=sizes.batch_size if run.budget.batch_size is None else run.budget.batch_size,
            updates=updates,
            device=run.device,
        )
        trainer = BehaviourTrainer(behaviour, sizes.learning_rate, config.max_grad_norm)
        pretrain("behaviour", batches, trainer, run, updates)
        agent.requires_grad_(False)
        return behaviour

    def batches(
        self, data: Sequence[OfflineDataset], run: Run, stream: str, updates: int, batch_size: int
    ) -> Iterator[SequenceBatch]:
        """As in `SequenceLearner`; single transitions come with the action behind them."""
        if self.recurrent(data[0].spec):
            return super().batches(data, run, stream, updates, batch_size)
        return single_steps(
            joint_transitions(
                data,
                [run.generator(stream, r) for r in range(len(data))],
                batch_size=batch_size if run.budget.batch_size is None else run.budget.batch_size,
                updates=updates,
                device=run.device,
                next_actions=True,
            )
        )
