"""`ins` and its ablations: joint transitions of a sparse transformer over agents, selected by value (INS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base import Run, require
from methods.diffusion.edm import noise_levels
from methods.journal import Journal
from methods.networks.agent_transformer import AgentTransformer, TransformerConfig
from methods.networks.token_groups import TokenGroups
from methods.transitions.chunks import ChunkedTable
from methods.transitions.config import within
from methods.transitions.denoising import DenoisingObjective, denoiser_of
from methods.transitions.diffusing import DiffusingAugmenter, DiffusingConfig
from methods.transitions.fit_data import FitData
from methods.transitions.model import TransitionModel
from methods.transitions.selection import SELECTIONS, candidates_for, selected
from methods.transitions.tokens import TokenLayout
from methods.transitions.training import Objective, Trained, TrainingPlan, train
from methods.transitions.value import JointValue, ValueObjective, ValueSettings
from methods.transitions.writer import TransitionWriter
from tasks.datasets.offline import OfflineDataset
from tasks.spec import TaskSpec

AGENT_IDS = ("auto", "always", "never")
_NEVER_ZERO = 1e-6  # an attention weight above it counts
_LAST_LEVEL = noise_levels(2)[-2]  # of the sampler before 0, in however many steps
_WATCHED = 1_024  # held-out transitions whose attention is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class INSConfig(DiffusingConfig):
    """Tab. A4 and A5 of INS."""

    width: int = 256  # of the feed-forward parts (inferred); the protocol's width is this one
    updates: int = 1_000_000  # INS, Tab. A4
    batch_size: int | None = 1024  # INS, Tab. A4
    learning_rate: float = 2e-4  # INS, Tab. A4
    embedding: int = 64  # INS, Tab. A4
    heads: int = 4  # INS, Tab. A4
    blocks: int = 2  # INS, Tab. A4; the text of App. K.1 has 4
    dropout: float = 0.1  # INS, Tab. A4
    attention: str = "sparse"  # "dense", "none": ablations (INS, Sec. 5.3)
    attn_scale: str = "post"  # as printed (INS, Sec. 4.1); "pre" scales the logits, as usual
    agent_ids: str = "auto"  # tell whose token it is: in teams of different agents (inferred), "always" or "never"
    value_learning_rate: float = 3e-4  # inferred
    gamma: float = 0.99  # of the value (inferred)

    select: str = "softmax"  # INS, Eq. 9; "topk": Sec. 5.4; "none": ablation, nothing is dropped
    eta: float = 0.8  # the share of the candidates that is kept; INS, Tab. A4
    select_temperature: float | None = None  # None: the deviation of the values (inferred); 1.0: Eq. 9 as printed

    def __post_init__(self) -> None:
        super(INSConfig, self).__post_init__()  # the bare form does not know a class with slots
        require(self.select in SELECTIONS, "ins", f"select={self.select}", " or ".join(SELECTIONS))
        require(0 < self.eta <= 1, "ins", f"eta={self.eta}", "a share above 0, at most 1")
        temperature = self.select_temperature
        positive = temperature is None or temperature > 0
        require(positive, "ins", f"select_temperature={temperature}", "a number above 0, or none")
        require(self.agent_ids in AGENT_IDS, "ins", f"agent_ids={self.agent_ids}", " or ".join(AGENT_IDS))
        require(0 <= self.gamma <= 1, "ins", f"gamma={self.gamma}", "a number in [0, 1]")
        require(self.value_learning_rate > 0, "ins", f"value_learning_rate={self.value_learning_rate}", "above 0")
        self.network(1, 0, self.width)

    def network(self, features: int, agent_ids: int, width: int) -> TransformerConfig:
        """Of tokens with so many features."""
        return TransformerConfig(
            features=features,
            embedding=self.embedding,
            heads=self.heads,
            blocks=self.blocks,
            feed_forward=width,
            dropout=self.dropout,
            attention=self.attention,
            attn_scale=self.attn_scale,
            agent_ids=agent_ids,
        )


class INS(DiffusingAugmenter[INSConfig]):
    """Agents are the tokens of a transformer with sparse attention; a value model chooses among the candidates.

    `amount` / η candidates are generated, and all compete at once.
    """

    Config = INSConfig
    version = 1
    name: ClassVar[str] = "ins"
    generation_fields: ClassVar[frozenset[str]] = DiffusingAugmenter.generation_fields | {
        "select",
        "eta",
        "select_temperature",
    }
    tiny_params: ClassVar[Mapping[str, Any]] = {**DiffusingAugmenter.tiny_params, "embedding": 8, "heads": 2}

    def build(self, layout: TokenLayout, width: int, generators: Sequence[np.random.Generator]) -> nn.ModuleDict:
        """The denoiser and V."""
        ids = self._agent_ids(layout.spec)
        denoiser = AgentTransformer(self.config.network(layout.features, ids, width), generators)
        return nn.ModuleDict({"main": denoiser, "value": JointValue(layout, ValueSettings().hidden, generators)})

    def plan(self, n_steps: int) -> TrainingPlan:
        """Adam with L2 decay; the rate rises over 1% of the updates, then falls as a cosine."""
        config = self.config
        return TrainingPlan(
            updates=config.updates,
            batch_size=config.batch_size or 1024,
            learning_rate=config.learning_rate,
            weight_decay=1e-4,  # INS, Tab. A4
            rate="warmup-cosine",  # INS, Tab. A4; its length is inferred
            ema_decay=config.ema_decay,  # inferred from SynthER
            ema_every=config.ema_every,
        )

    def objective(self, module: nn.ModuleDict, given: FitData, batch_size: int, *, judging: bool = False) -> Objective:
        """One noise level for all agents of a transition."""
        groups = TokenGroups(given.layout.tokens, apart=False)
        return DenoisingObjective(
            module["main"], groups, given.tokens, given.taught, batch_size, one_level=True, dropout=not judging
        )

    def further_stages(self) -> int:
        """The value model."""
        return 1

    def further(
        self, module: nn.ModuleDict, given: FitData, plan: TrainingPlan, run: Run, journal: Journal
    ) -> Mapping[str, Trained]:
        """V on as many batches as the denoiser, drawn apart; INS trains both on the same ones."""
        config, data = self.config, given.data
        value = module["value"]
        assert isinstance(value, JointValue)  # `build` made it
        settings = ValueSettings(learning_rate=config.value_learning_rate, gamma=config.gamma)
        objective = ValueObjective(
            value, settings, given.tokens, data.team_rewards(), data.terminals, given.taught, plan.batch_size
        )
        own = TrainingPlan(updates=plan.updates, batch_size=plan.batch_size, learning_rate=settings.learning_rate)
        trained = train(objective, within(own, run), run, journal, stage=f"{self.name}/value", before=plan.updates)
        return {"value": trained}

    @torch.no_grad()
    def judge(self, model: TransitionModel, given: FitData, generator: np.random.Generator) -> Mapping[str, Any]:
        """Of the attention to noisy held-out transitions: how many agents a row has, and how often it is one alone."""
        if self.config.attention == "none":
            return {}
        seen: list[Tensor] = []
        watched = nn.ModuleDict({"main": _Watched(model.module["main"], seen)})
        objective = self.objective(watched, given, _WATCHED, judging=True)
        objective.losses(*(torch.from_numpy(a)[None].to(model.device) for a in objective.draw(generator, 0)))
        support = torch.cat([(p > _NEVER_ZERO).sum(dim=-1).flatten() for p in seen]).float()
        return {"attention_support": float(support.mean()), "attention_one_hot": float((support == 1).float().mean())}

    @torch.no_grad()
    def attention(self, data: OfflineDataset, steps: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Of the sampler's last step on real transitions (INS, Sec. 5.5); mean over blocks and heads (inferred)."""
        if self._model is None or self.config.attention == "none":
            return None
        model, seen = self._model, list[Tensor]()
        tokens = model.normaliser.encode(torch.from_numpy(model.layout.assemble(data, steps)).to(model.device))
        denoiser_of(_Watched(model.module["main"], seen))(tokens, _LAST_LEVEL)
        weights: NDArray[np.float32] = (
            torch.stack(seen)[:, 0].mean(dim=(0, 2)).cpu().numpy()
        )  # each (1, M, heads, N, N)
        return weights

    def generate_transitions(
        self, model: TransitionModel, data: OfflineDataset, run: Run, amount: int
    ) -> OfflineDataset:
        """Candidates into a table, values beside them, then the chosen ones into the dataset.

        The values of all candidates are in memory while they compete.
        """
        config = self.config
        if config.select == "none":
            return super().generate_transitions(model, data, run, amount)
        count, layout = candidates_for(amount, config.eta), model.layout
        keeper = self.keeper(run, count)
        columns = {"tokens": ((count, layout.tokens, layout.features), np.float32), "values": ((count,), np.float64)}
        candidates = ChunkedTable("candidates", columns, count, keeper)
        for tokens in self.chunks(model, run, count, candidates.done):
            with torch.no_grad():
                value = model.module["value"](tokens[None])[0]
            model.require_finite(value, self.name)
            raw = model.normaliser.decode(tokens).cpu().numpy()
            candidates.add(len(tokens), {"tokens": raw, "values": value.double().cpu().numpy()})
        values = candidates.rows("values", 0, count)
        kept = selected(
            values, amount, config.select, config.select_temperature, run.generator(f"{self.name}/selection")
        )
        writer = TransitionWriter(data.spec, amount, keeper)
        for start in range(writer.done, amount, config.rows_at_once):
            part = kept[start : start + config.rows_at_once]  # ascending: near each other in the file
            near = candidates.rows("tokens", int(part[0]), int(part[-1]) + 1)
            writer.add(model.emit_raw(near[part - part[0]], data))
            run.report(writer.done, amount, f"{self.name}: selected transitions")
        self._told |= {
            "candidates": count,
            "value_of_candidates": float(values.mean()),
            "value_of_kept": float(values[kept].mean()),
            "deviation_of_values": float(values.std()),
        }
        return writer.dataset()

    def _agent_ids(self, spec: TaskSpec) -> int:
        wanted = {"auto": len(spec.agent_groups) > 1, "always": True, "never": False}[self.config.agent_ids]
        return spec.n_agents if wanted else 0


class _Watched(nn.Module):
    """A denoiser whose attention weights are kept."""

    def __init__(self, network: nn.Module, seen: list[Tensor]) -> None:
        super().__init__()
        self._network, self._seen = network, seen

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """As that of the network."""
        out: Tensor = self._network(x, c_noise, None, self._seen)
        return out
