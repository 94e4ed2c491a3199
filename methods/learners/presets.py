"""`learner@paper`: learners as a paper used them, as far as it, or the code that it names, says how.

What is left open there is the learner's own default. A protocol sets updates and batches all the same.
"""

from __future__ import annotations

from typing import Any

from methods.base import Learner
from tasks.common.registry import Registry
from tasks.common.selector import Scalar

_OMAR_SPREAD = 2_001  # updates an agent in OMAR's repository on `spread` and `tag`; the papers that cite it say nothing
_OMAR: dict[str, Scalar] = {
    "discount": 0.95,
    "updates": _OMAR_SPREAD,
    "batch_norm": True,
    "penalised": "actions",
    "reward_scale": 1.0,
}


def add_presets(table: Registry[type[Learner[Any]]]) -> None:
    """Registers all presets."""
    # MADiTS, App. E: OffPyMARL with its own settings, 100,000 updates.
    table.preset("bc", "madits", "OffPyMARL: cross entropy of probabilities, discrete actions", double_softmax=True)
    table.preset(
        "omiga",
        "madits",
        "OffPyMARL: recurrent policy, discrete actions, mixer without ReLU, clipped at 10",
        memory="gru",
        mixer_relu=False,
        max_grad_norm=10.0,
        batch_size=32,
    )
    table.preset(
        "cfcql", "madits", "OffPyMARL: the defaults of discrete actions, rewards as they are", reward_scale=1.0
    )

    # CODI, Sec. 4.1, names its learners and no setting.
    for name in ("bc", "bc50", "omar", "omiga"):
        table.preset(name, "codi", "CODI states no setting: the defaults")

    # MASTARS, App. D.2, cites OMAR and CFCQL for its baselines in MPE.
    table.preset(
        "td3bc",
        "mastars",
        "(1 - tau) Q - tau (pi - a)^2, in OMAR's code base",
        form="tau",
        discount=0.95,
        reward_scale=1.0,
        updates=_OMAR_SPREAD,
    )
    table.preset("omar", "mastars", "OMAR's repository", **_OMAR)
    table.preset(
        "cfcql", "mastars", "CFCQL's repository", discount=0.95, batch_norm=True, penalised="actions", reward_scale=1.0
    )

    # INS, App. I and K.3: "hyper-parameters of the original papers", linking OMAR's, ICQ's and BCQ's repositories.
    table.preset("omar", "ins", "OMAR's repository", **_OMAR)
    table.preset("cql", "ins", "OMAR's repository without the search", **_OMAR)
    table.preset("icq", "ins", "ICQ's repository, SMAC: trace 0.75, clipped at 20", trace=0.75, max_grad_norm=20.0)
    table.preset("bcq", "ins", "INS links BCQ's repository and states no setting: the defaults")

    # EAQ, Sec. 4.1 and Tab. 1: OG-MARL, most likely as it was in March 2024 (inferred from the date), 15,000 updates.
    table.preset(
        "qmix-cql",
        "eaq",
        "OG-MARL of March 2024: weight 1 in effect, 10 samples of all actions",
        conservatism=1.0,
        cql_samples=10,
        cql_actions="all",
        window=20,
        updates=15_000,
    )
    table.preset("qmix-bcq", "eaq", "OG-MARL", window=20, updates=15_000)
