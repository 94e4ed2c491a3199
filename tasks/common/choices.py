"""Parameters of a selector that are chosen from a few values each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from tasks.common.errors import UsageError
from tasks.common.selector import Scalar, Selector

Choices = Mapping[str, Sequence[Scalar]]
"""The values of each parameter; the first is the default."""


def chosen(selector: Selector, choices: Choices, owner: str) -> dict[str, Scalar]:
    """Every parameter with its value, defaults filled in.

    Args:
        selector: what was asked for.
        choices: what there is.
        owner: whose parameters they are, for messages.

    Raises:
        UsageError: on an unknown parameter or value; the message lists the valid ones.
    """
    found = {key: values[0] for key, values in choices.items()}
    for key, value in selector.params.items():
        if key not in choices:
            known = "; ".join(f"{name}={_alternatives(values)}" for name, values in choices.items()) or "none"
            raise UsageError(f"{selector}: {owner} has no parameter {key!r}.{_nearest(key, choices)} It has: {known}.")
        if value not in choices[key]:
            hint = _nearest(str(value), map(str, choices[key]))
            raise UsageError(
                f"{selector}: {key}={value} is not possible.{hint} Choose {key}={_alternatives(choices[key])}."
            )
        found[key] = choices[key][choices[key].index(value)]  # 8, where 8.0 was asked for
    return found


def non_default(parameters: Mapping[str, Scalar], choices: Choices) -> dict[str, Scalar]:
    """The parameters that differ from their defaults, as a canonical name has them."""
    return {key: value for key, value in parameters.items() if value != choices[key][0]}


def _alternatives(values: Sequence[Scalar]) -> str:
    return "|".join(map(str, values))


def _nearest(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""
