"""Do the agents' views agree? Mean displacement between where an entity is and where the others see it."""

from __future__ import annotations

import numpy as np

from benchmark.quality.family import Family, Measured
from benchmark.quality.report import Measurement
from benchmark.quality.subject import Subject, UndefinedError
from tasks.scene import Scene


def measure(subject: Subject) -> Measured:
    """`mean_ade` of the sampled observations.

    MADiTS (Sec. 5.3) calls it "the average deviation of entities from the observations of all agents" and gives no
    formula. Here: the distance between where an agent says that it is and where a teammate sees it (own position plus
    observed offset); for entities that observe nothing, between where an agent sees them and the mean of all views;
    averaged over views, then entities, then time steps. # inferred
    """
    value, by_kind = mean_ade(subject.scenes["synthetic"])
    original, _ = mean_ade(subject.scenes["original"])
    return Measured({"mean_ade": Measurement(value=value, original=original, details=dict(by_kind))})


FAMILY = Family(("mean_ade",), measure)


def mean_ade(scene: Scene) -> tuple[float, dict[str, float]]:
    """The mean over the entities that somebody sees, in units of the map, and the mean of each kind.

    Raises:
        UndefinedError: where nobody sees anybody.
    """
    seen = [(entity.kind, float(entity.disagreement().mean())) for entity in scene.entities if entity.viewers]
    if not seen:
        raise UndefinedError("no agent sees another entity")
    kinds = dict.fromkeys(kind for kind, _ in seen)
    by_kind = {kind: float(np.mean([value for name, value in seen if name == kind])) for kind in kinds}
    return float(np.mean([value for _, value in seen])), by_kind
