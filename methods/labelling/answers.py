"""What a language model answered, read strictly: an agent's index, or nothing."""

from __future__ import annotations

import json
import re

from methods.labelling.oracle import UNDECIDED

_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?!\w)")


def parse_answer(text: str, n_agents: int) -> int:
    """The agent that an answer names, in 0..n-1, or `UNDECIDED`.

    The last JSON object with a key `agent` decides, and only by a whole number; without one, the last whole number
    of the text does. Numbers out of range are no answer.
    """
    for candidate in reversed(_OBJECT.findall(text)):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, dict) and "agent" in value:
            return _in_range(value["agent"], n_agents)
    numbers = [int(token) for token in _NUMBER.findall(text) if "." not in token and len(token) < 10]
    return _in_range(numbers[-1], n_agents) if numbers else UNDECIDED


def _in_range(value: object, n_agents: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if whole and 0 <= int(value) < n_agents else UNDECIDED  # type: ignore[call-overload]
