"""The oracle that reads who acted; only what declares itself privileged may use it (CODI, Sec. 4.1, "w Pri.")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from methods.labelling.oracle import UNDECIDED, Oracle, Progress, others_than
from methods.labelling.windows import LabelWindows
from tasks.common.errors import UsageError
from tasks.datasets.offline import BEHAVIOURS

SKILL = {"expert": 3, "medium": 2, "learner": 1, "poor": 1, "random": 0}
"""A learner's replay and a poor policy are worse than a medium one and better than chance."""  # inferred


class PrivilegedOracle(Oracle):
    """Compares the counts (expert, medium, learner) of the agents, in this order. Ties are undecided."""

    name = "privileged"

    def label(self, windows: LabelWindows, progress: Progress) -> NDArray[np.int64]:
        """The best agent where there is one alone."""
        best = self.best_agents(windows)
        return np.where(best.sum(axis=1) == 1, best.argmax(axis=1), UNDECIDED)

    def best_agents(self, windows: LabelWindows) -> NDArray[np.bool_]:
        """(M, N) who has the most expert steps, then medium ones, then a learner's; nobody where all act at random.

        Raises:
            UsageError: if the data lack the column.
        """
        behaviour = windows.behaviour
        if behaviour is None:
            raise UsageError(
                f"The privileged oracle needs the `behaviour` column, which these data lack. {others_than(self.name)}"
            )
        score = np.zeros(behaviour.shape[::2], dtype=np.int64)  # (M, N)
        base = behaviour.shape[1] + 1  # larger than any count, so one expert step outweighs all others
        for code, who in enumerate(BEHAVIOURS):
            if SKILL[who]:
                score += (behaviour == code).sum(axis=1) * base ** (SKILL[who] - 1)
        return np.asarray((score == score.max(axis=1, keepdims=True)) & (score > 0), dtype=np.bool_)
