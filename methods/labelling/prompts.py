"""A window told in words: what the task is, what every agent did step by step, and what to answer.

CODI, Sec. 3.1 gives the form, [description, window as text, instruction], and Sec. 4.3 a fragment for cooperative
navigation: one timeline an agent with its action, the nearest landmark and the distance to it. The wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from methods.labelling.features import CONTACT_DISTANCE, Kind, distances, kind_of
from methods.labelling.windows import LabelWindows
from tasks.spec import TaskSpec

PROMPT_FEATURES = 32
"""Features of a row that a general timeline names; more would make a prompt of many thousand tokens."""

_TASKS: dict[Kind, str] = {
    "coverage": (
        "A team of agents moves on a plane with as many landmarks as agents. Together they should cover all "
        "landmarks, each agent a different one, and avoid bumping into each other. A skilled agent heads for a "
        "landmark without detours and stays there; a poor one drifts, dithers or moves away."
    ),
    "pursuit": (
        "A team of predators moves on a plane and should catch a faster prey by touching it, again and again, while "
        "obstacles stand in the way. A skilled predator closes in, cuts off the escape and keeps contact; a poor one "
        "drifts, dithers or falls behind."
    ),
    "battle": (
        "A team of units fights an enemy team and should defeat it. A skilled unit attacks when it can, joins its "
        "team-mates on one target, and keeps out of harm when weak; a poor one wanders, idles or scatters its fire."
    ),
    "general": "A team of agents acts together and shares one reward, which should become as large as possible.",
}

_Seen = Callable[[int, int, int], str]


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


def prompt_messages(spec: TaskSpec, windows: LabelWindows) -> list[tuple[Message, ...]]:
    """The question about each of M windows."""
    kind = kind_of(spec)
    system: Message = {"role": "system", "content": "You judge how skilfully the members of a team act."}
    timelines = {"coverage": _coverage, "pursuit": _pursuit}.get(kind, _general)(spec, windows)
    questions: list[tuple[Message, ...]] = []
    for window, lines in enumerate(timelines):
        rewards = ", ".join(f"{reward:.2f}" for reward in windows.rewards[window, : windows.steps[window]])
        parts = [
            f"Task: {_TASKS[kind]}",
            f"Below is a segment of {windows.steps[window]} steps of an episode with {windows.n_agents} agents.",
            *(f"Agent {agent}:\n" + "\n".join(steps) for agent, steps in enumerate(lines)),
            f"Team reward, step by step: {rewards}",
            _instruction(windows.n_agents),
        ]
        questions.append((system, {"role": "user", "content": "\n\n".join(parts)}))
    return questions


def _instruction(n_agents: int) -> str:
    return (
        "Compare the agents briefly, in a few sentences. Then name the single agent that acts most like an expert, "
        "even if the difference is small. End with one line of JSON and nothing after it: "
        f'{{"agent": I}}, I being a whole number from 0 to {n_agents - 1}.'
    )


def _coverage(spec: TaskSpec, windows: LabelWindows) -> list[list[list[str]]]:
    """Lines of every window and agent: action, nearest landmark, distance to it."""
    d = distances(spec, windows, r"landmark_\d+")  # (M, H, N, landmarks)
    nearest, least = d.argmin(axis=-1), d.min(axis=-1)  # (M, H, N)

    def seen(window: int, row: int, agent: int) -> str:
        at = (window, row, agent)
        return f"nearest landmark {nearest[at]} at distance {least[at]:.3f}"

    return _lines(spec, windows, seen)


def _pursuit(spec: TaskSpec, windows: LabelWindows) -> list[list[list[str]]]:
    """Lines of every window and agent: action, distance to the prey, contact."""
    d = distances(spec, windows, "prey").min(axis=-1)  # (M, H, N)

    def seen(window: int, row: int, agent: int) -> str:
        distance = d[window, row, agent]
        return f"prey at distance {distance:.3f}{', in contact' if distance < CONTACT_DISTANCE else ''}"

    return _lines(spec, windows, seen)


def _general(spec: TaskSpec, windows: LabelWindows) -> list[list[list[str]]]:
    """Lines of every window and agent: action, and the first features that are not zero."""

    def seen(window: int, row: int, agent: int) -> str:
        values = windows.observations[window, row, agent]
        shown = np.flatnonzero(np.abs(values) >= 5e-3)[:PROMPT_FEATURES]
        if windows.alive is not None and not windows.alive[window, row, agent]:
            return "out of action"
        return ", ".join(f"{spec.observation_features[i]} {values[i]:.2f}" for i in shown) or "nothing in sight"

    return _lines(spec, windows, seen)


def _lines(spec: TaskSpec, windows: LabelWindows, seen: _Seen) -> list[list[list[str]]]:
    """(M, N, steps + 1) lines: what an agent saw and did at each step, and what it saw in the end."""
    return [
        [
            [
                *(
                    f"t={t}: {seen(m, t, i)}; action {action_name(spec, windows, m, t, i)}"
                    for t in range(windows.steps[m])
                ),
                f"end: {seen(m, int(windows.steps[m]), i)}",
            ]
            for i in range(windows.n_agents)
        ]
        for m in range(len(windows))
    ]


def action_name(spec: TaskSpec, windows: LabelWindows, window: int, step: int, agent: int) -> str:
    """An action in words: its name, or its numbers by dimension."""
    action = windows.actions[window, step, agent]
    names = spec.action.names or tuple(str(index) for index in range(spec.action.size))
    if spec.action.discrete:
        return names[int(action)]
    return "(" + ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, action, strict=True)) + ")"
