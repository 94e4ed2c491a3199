"""The interface of quality oracles, and the table of them (CODI, Sec. 3.1)."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.labelling.windows import LabelWindows
from tasks.common.errors import UsageError

UNDECIDED = -1
"""An oracle's answer where it knows no best agent; such a window teaches the labeller nothing."""

ORACLES = {
    "heuristic": "a rule for the task's family, read from the names of the observation's features",
    "llm": "a language model behind an OpenAI-compatible endpoint",
    "privileged": "the hidden `behaviour` column",
}
Progress = Callable[[int, int, str], None]


class Oracle(ABC):
    """Says which agent plays best in a window."""

    name: str

    @abstractmethod
    def label(self, windows: LabelWindows, progress: Progress) -> NDArray[np.int64]:
        """The best agent of each of M windows, (M,) in 0..N-1, or `UNDECIDED`.

        Args:
            windows: M of them.
            progress: called with (done, total, message) every few seconds; what it raises ends the labelling.

        Raises:
            UsageError: if the oracle cannot answer at all; the message names the others.
        """

    def report(self) -> Mapping[str, Any]:
        """What the last call of `label` tells, as values that JSON knows."""
        return {}


def resolve_oracle(name: str) -> str:
    """The oracle that `auto` stands for: the language model where an endpoint is named in the environment.

    Raises:
        UsageError: for a name that is no oracle.
    """
    if name == "auto":
        named = any(os.environ.get(key) for key in ("AUGMARL_LLM_BASE_URL", "AUGMARL_LLM_API_KEY"))
        return "llm" if named else "heuristic"
    if name not in ORACLES:
        raise UsageError(f"There is no oracle {name!r}. There are: auto, {', '.join(ORACLES)}.")
    return name


def others_than(name: str) -> str:
    """A sentence that names the other oracles, for messages of one that cannot answer."""
    return "Other oracles: " + "; ".join(f"oracle={key} ({what})" for key, what in ORACLES.items() if key != name) + "."
