"""The table of learners: a name, the class behind it, what it is, and the parameters that make the variant."""

from __future__ import annotations

from typing import Any

from methods.base import Learner
from methods.learners.presets import add_presets
from tasks.common.errors import UsageError
from tasks.common.registry import Registry


def _check(name: str, loaded: object) -> None:
    if not (isinstance(loaded, type) and issubclass(loaded, Learner)):
        raise UsageError(f"Learner {name!r} is {loaded!r}; expected a subclass of methods.base.Learner.")


LEARNERS: Registry[type[Learner[Any]]] = Registry("learner", check=_check, entry_points="augmarl.learners")
LEARNERS.add("bc", "methods.learners.bc:BC", "behaviour cloning: the plain measure of data quality")
LEARNERS.add("bc50", "methods.learners.bc:BC", "behaviour cloning of the better half of episodes", keep_fraction=0.5)
LEARNERS.add("td3bc", "methods.learners.td3bc:TD3BC", "MA-TD3+BC: TD3 with a cloning penalty")
LEARNERS.add("omar", "methods.learners.omar:OMAR", "conservative critics, actors drawn to actions that a search finds")
LEARNERS.add("cql", "methods.learners.omar:OMAR", "MA-CQL: conservative critics, actors by policy gradient", tau=0.0)
LEARNERS.add("omiga", "methods.learners.omiga:OMIGA", "one linear mix of Q and V, learned in-sample; weighted cloning")
LEARNERS.add("icq", "methods.learners.icq:ICQ", "MA-ICQ: values of recorded actions alone, cloning by batch softmax")
LEARNERS.add("qmix-cql", "methods.learners.qmix_cql:QMIXCQL", "QMIX with a conservative penalty on the team's value")
LEARNERS.add("qmix-bcq", "methods.learners.qmix_bcq:QMIXBCQ", "QMIX whose targets take likely actions alone")
LEARNERS.add("cfcql", "methods.learners.cfcql:CFCQL", "a value of the team, a conservative penalty for each agent")
LEARNERS.add("bcq", "methods.learners.bcq:BCQ", "MA-BCQ: the best of actions that a model of the data proposes")
add_presets(LEARNERS)
