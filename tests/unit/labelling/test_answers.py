"""Answers of language models, read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.labelling.answers import parse_answer


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        ('Agent 0 drifts, agent 1 does not.\n{"agent": 2}', 2),
        ('{"agent": 0}', 0),
        ('{"agent": 1} then again {"agent": 2}', 2),
        ('{"agent": 1} {"score": 2}', 1),  # the last object that names an agent
        ("The best agent is 1.", 1),
        ("Agent 2 (0.407 -> 0.200) was best", 2),  # decimals are no indices
        ("**Answer: 2**", 2),
        ("", -1),
        ("none of them", -1),
        ("agent 7", -1),
        ("Agent 1 is good, but the answer is -1", -1),
        ('Agent 1 {"agent": 3}', -1),  # an answer out of range is none, whatever stood before
        ('Agent 1 {"agent": "1"}', -1),
        ('{"agent": true}', -1),
        ('{"agent": 1.0}', -1),
        ('{"agent": null} 1', -1),
        ("{agent: 1}", 1),
        ("0.25", -1),
        ("3rd place, agent2", -1),
        ("99999999999999999999", -1),
    ],
)
def test_the_agent_that_an_answer_names(text: str, agent: int) -> None:
    assert parse_answer(text, 3) == agent


@given(st.text(), st.integers(1, 5))
def test_any_text_gives_an_agent_or_nothing(text: str, n_agents: int) -> None:
    assert -1 <= parse_answer(text, n_agents) < n_agents
