"""Protocols: named budgets that every cell of a matrix shares. Numbers of a paper carry their place in it.

A protocol may be varied where it is named, `quick[updates=1000]`; the variation is part of its name, so that records
of different budgets never meet on one page. What a model of an augmenter may use is varied with `diffusion_`,
`episode_` or `transition_` in front: `quick[diffusion_updates=500]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from methods.run import COMPUTES, ComputeBudget, DiffusionBudget, EpisodeBudget, TransitionBudget
from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.selector import Scalar, Selector

SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")
MixRule = Literal["union", "replace", "upsample"]


@dataclass(frozen=True, slots=True)
class Mix:
    """How original and synthetic episodes become one training set.

    union: the original followed by the synthetic ones. replace: the synthetic ones alone (INS, Sec. 5.1), or the
    original where there are none. upsample: union with the synthetic episodes `factor` times.
    Written `union`, `replace` or `upsample-5`.
    """

    rule: MixRule = "union"
    factor: int = 1

    @classmethod
    def parse(cls, text: str) -> Mix:
        """Reads `union`, `replace` or `upsample-<factor>`. Raises UsageError."""
        rule, _, factor = text.partition("-")
        if rule == "upsample" and factor.isdigit() and int(factor) > 1:
            return cls("upsample", int(factor))
        if rule in ("union", "replace") and not factor:
            return cls(rule)  # type: ignore[arg-type]  # one of the two, just checked
        raise UsageError(f"{text!r} is no mix. Expected union, replace, or upsample-5 (any factor above 1).")

    def __str__(self) -> str:
        return f"{self.rule}-{self.factor}" if self.rule == "upsample" else self.rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The budget of a run.

    Attributes:
        dataset_episodes: episodes of the original data, by task family; `default` for the others.
        dataset_seed: replicates share the original data, so one seed.
        amount_ratio: transitions to add, as a multiple of the original ones; None: each method's own amount.
        mix: how original and synthetic data are joined.
        updates, batch_size: of a learner, whatever the size of the data; None: the learner's own.
        snapshots: points of the learning curve, the final policy included.
        diffusion: the compute of a model that diffuses windows, the same for every method that has one.
        episode: that of a model that diffuses whole episodes, likewise.
        transition: that of a model of single transitions, likewise.
        evaluation_episodes: of the final policy, by family. curve_episodes: of each point of the curve.
        environment_seed: of the evaluation; derived apart from every dataset's seeds.
        timeout_seconds: of one cell group (all replicates of a task, dataset, augmenter and learner).
        publishable: whether a leaderboard may show the records.
    """

    name: str
    summary: str
    dataset_episodes: Mapping[str, int]
    dataset_seed: int = 0
    amount_ratio: float | None = 1.0
    mix: Mix = field(default_factory=Mix)
    updates: int | None = None
    batch_size: int | None = None
    snapshots: int = 1
    diffusion: DiffusionBudget = field(default_factory=DiffusionBudget)
    episode: EpisodeBudget = field(default_factory=EpisodeBudget)
    transition: TransitionBudget = field(default_factory=TransitionBudget)
    evaluation_episodes: Mapping[str, int]
    curve_episodes: int = 32
    environment_seed: int = 0
    timeout_seconds: float
    publishable: bool = True

    def episodes_of_dataset(self, family: str) -> int:
        """Episodes of the original data of a task of this family."""
        return self.dataset_episodes.get(family, self.dataset_episodes["default"])

    def episodes_of_evaluation(self, family: str) -> int:
        """Episodes of the final evaluation on a task of this family."""
        return self.evaluation_episodes.get(family, self.evaluation_episodes["default"])

    def episodes_of_curve(self, family: str) -> int:
        """Episodes of a point of the learning curve, never more than of the final evaluation."""
        return min(self.curve_episodes, self.episodes_of_evaluation(family))

    def compute(self, kind: str) -> ComputeBudget:
        """The budget of models of a kind, one of COMPUTES."""
        budget: ComputeBudget = getattr(self, kind)
        return budget

    def settings(self) -> dict[str, Any]:
        """All numbers as plain values, for records."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {"mix": str(self.mix), **{compute: asdict(self.compute(compute)) for compute in COMPUTES}}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in plain.items()}


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="smoke",
                summary="seconds, for tests; never published",
                dataset_episodes={"default": 16},
                updates=12,
                batch_size=32,
                snapshots=2,
                diffusion=DiffusionBudget(
                    width=8,
                    prediction="velocity",
                    first_skip=True,
                    updates=20,
                    batch_size=16,
                    learning_rate=1e-3,
                    ema_every=1,
                    head_updates=5,
                    sampler="ddim",
                    sampling_steps=2,
                ),
                episode=EpisodeBudget(
                    width=8,
                    prediction="velocity",
                    updates=20,
                    batch_size=16,
                    learning_rate=1e-3,
                    ema_every=1,
                    head_updates=5,
                    sampler="ddim",
                    sampling_steps=2,
                ),
                transition=TransitionBudget(
                    width=16, updates=20, batch_size=32, learning_rate=1e-3, sampler="edm_heun_det", sampling_steps=3
                ),
                evaluation_episodes={"default": 8},
                curve_episodes=4,
                timeout_seconds=120,
                publishable=False,
            ),
            Protocol(
                name="quick",
                summary="about half a minute a cell group on one CPU core, minutes where a diffusion model is fitted",
                dataset_episodes={
                    "mamujoco": 50,  # up to 50,000 transitions
                    "default": 2_000,  # 50,000 transitions of MPE; MASTARS D.3 and J use 2,000 as well
                },
                amount_ratio=1.0,  # union 1:1 (MADiTS, App. E)
                updates=20_000,  # where the slowest curves of BC have flattened (docs/harness.md)
                batch_size=128,  # half of 256 makes an update a third cheaper, and curves flatten no later
                snapshots=10,
                diffusion=DiffusionBudget(
                    width=32,
                    prediction="velocity",  # what the papers have needs far more updates before
                    first_skip=True,  # windows are accepted (docs/diffusion.md)
                    updates=2_500,  # choice; after 2,000 CODI's filter refused 70% of the windows
                    batch_size=32,
                    learning_rate=2e-3,  # the largest tried (choice) that does not diverge
                    ema_every=1,  # so few updates are over before the papers' averages have begun
                    head_updates=1_500,
                    sampler="ddpm",  # ddim and dpmpp_2m start from half the noise and add none: windows stand still
                    sampling_steps=6,  # choice; filters accept fewer windows of 5
                ),
                # Choices: the network is deeper, and at the rate of `diffusion` it diverges.
                episode=EpisodeBudget(
                    width=32,
                    prediction="velocity",
                    updates=1_000,
                    batch_size=32,
                    learning_rate=1e-3,
                    ema_every=1,
                    head_updates=1_500,
                    sampler="ddpm",
                    sampling_steps=20,
                ),
                # Choices: a joint fit of three takes about two minutes; without fresh noise few steps err less.
                transition=TransitionBudget(
                    width=256,
                    updates=2_000,
                    batch_size=256,
                    learning_rate=1e-3,
                    sampler="edm_heun_det",
                    sampling_steps=16,
                ),
                evaluation_episodes={
                    "mamujoco": 10,  # of a thousand steps; OMAR's repository, OMIGA's
                    "default": 320,  # choice: seconds on MPE
                },
                curve_episodes=32,  # choice: seconds on MPE
                timeout_seconds=3600,  # a group may wait for another one's diffusion model
            ),
            Protocol(
                name="paper",
                summary="each paper's own numbers, for GPUs",
                dataset_episodes={
                    "mpe": 40_000,  # MADiTS, Sec. 5.1
                    "smac": 20_000,  # MADiTS, Sec. 5.1; CODI, Sec. 4.1
                    "smacv2": 10_000,  # MADiTS, Sec. 5.1
                    "mamujoco": 2_000,  # MADiTS, Sec. 5.1
                    "default": 20_000,
                },
                amount_ratio=None,  # each method's own
                updates=None,  # each learner's own
                batch_size=None,
                snapshots=20,
                diffusion=DiffusionBudget(),  # each method's own, as of episodes and transitions
                evaluation_episodes={"mamujoco": 10, "default": 320},  # choice: seconds on MPE
                curve_episodes=32,
                timeout_seconds=24 * 3600,
            ),
        )
    }
)

_LOWEST: Mapping[str, float] = {
    "dataset_episodes": 1, "dataset_seed": 0, "amount_ratio": 0, "updates": 1, "batch_size": 1, "snapshots": 1,
    "evaluation_episodes": 1, "curve_episodes": 1, "environment_seed": 0, "timeout_seconds": 1,
    "diffusion_width": 8, "diffusion_updates": 1, "diffusion_batch_size": 1, "diffusion_learning_rate": 1e-9,
    "diffusion_ema_every": 1, "diffusion_head_updates": 1, "diffusion_sampling_steps": 1,
    "episode_width": 8, "episode_updates": 1, "episode_batch_size": 1, "episode_learning_rate": 1e-9,
    "episode_ema_every": 1, "episode_head_updates": 1, "episode_sampling_steps": 1,
    "transition_width": 1, "transition_updates": 1, "transition_batch_size": 1, "transition_learning_rate": 1e-9,
    "transition_sampling_steps": 2,
}  # fmt: skip
"""The numbers that a name may vary, and the smallest value of each."""
_CHOICES: Mapping[str, tuple[Scalar, ...]] = {
    "diffusion_sampler": SAMPLERS,
    "episode_sampler": SAMPLERS,
    "transition_sampler": ("edm_heun", "edm_heun_det"),
    "diffusion_prediction": ("noise", "velocity"),
    "episode_prediction": ("data", "velocity"),
    "diffusion_first_skip": (True, False),
}
SIZING = frozenset(("mix", "amount_ratio", "updates"))
"""What a published table may have otherwise than its protocol: it has pages of its own, whose name says so."""
_HIGHEST = 10**9
_OWN = "own"  # amount_ratio: each method's own amount
_FRACTIONAL = ("amount_ratio", "timeout_seconds", *(f"{compute}_learning_rate" for compute in COMPUTES))


def make_protocol(text: str) -> Protocol:
    """The protocol of a name such as `quick`, `quick[updates=1000,mix=replace]` or `quick[diffusion_updates=500]`.

    A varied protocol is not publishable unless it differs in `SIZING` alone.

    Raises:
        UsageError: for an unknown name or setting, or a value of the wrong kind.
    """
    selector = Selector.parse(text)
    if selector.name not in PROTOCOLS:
        raise UnknownNameError("protocol", selector.name, PROTOCOLS)
    base = PROTOCOLS[selector.name]
    changes: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {compute: {} for compute in COMPUTES}
    for setting, value in selector.params.items():
        read = _read_setting(base.name, setting, value)
        compute, _, of_model = setting.partition("_")
        if compute in models:
            models[compute][of_model] = read
        else:
            changes[setting] = read
    changes |= {compute: replace(base.compute(compute), **varied) for compute, varied in models.items() if varied}
    if not changes:
        return base
    publishable = base.publishable and set(changes) <= SIZING
    return replace(base, name=str(selector), publishable=publishable, **changes)


def _read_setting(protocol: str, setting: str, value: Scalar) -> Any:
    """The value of a setting of a varied protocol. Raises UsageError."""
    if setting == "mix":
        return Mix.parse(str(value))
    if (setting, value) == ("amount_ratio", _OWN):
        return None
    if setting in _CHOICES:
        if (type(value), value) not in [(type(choice), choice) for choice in _CHOICES[setting]]:  # 1 is not true
            raise UnknownNameError(setting, str(value), [str(choice) for choice in _CHOICES[setting]])
        return value
    if setting not in _LOWEST:
        raise UnknownNameError(f"setting of protocol {protocol}", setting, [*_LOWEST, *_CHOICES, "mix"])
    low = _LOWEST[setting]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= _HIGHEST:
        raise UsageError(f"Protocol setting {setting}={value!r} is not a number from {low} to {_HIGHEST:,}.")
    if setting not in _FRACTIONAL and not isinstance(value, int):
        raise UsageError(f"Protocol setting {setting}={value!r} is not a whole number.")
    if setting in ("diffusion_width", "episode_width") and value % 8:
        raise UsageError(
            f"Protocol setting {setting}={value!r} is no multiple of 8, which the network's group norm needs."
        )
    if setting in ("dataset_episodes", "evaluation_episodes"):
        return {"default": value}
    return value


def with_mix(protocol: Protocol, mix: Mix) -> Protocol:
    """The protocol with another mix, and a name that says so."""
    if mix == protocol.mix:
        return protocol
    selector = Selector.parse(protocol.name)
    return make_protocol(str(Selector.of(selector.name, {**selector.params, "mix": str(mix)})))
