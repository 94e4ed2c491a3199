"""What the environment says about the endpoint, and what of it is never told."""

from __future__ import annotations

import pytest

from methods.labelling.endpoint import PAPER_MODEL, PAPER_SERVICE, endpoint_from, model_from
from methods.labelling.oracle import resolve_oracle
from tasks.common.errors import UsageError


def test_a_key_means_the_service_of_the_paper_and_a_url_needs_no_key() -> None:
    assert endpoint_from({"AUGMARL_LLM_API_KEY": "sk-1"}).base_url == PAPER_SERVICE
    local = endpoint_from({"AUGMARL_LLM_BASE_URL": "http://localhost:11434/v1"})
    assert (local.base_url, local.host) == ("http://localhost:11434/v1", "localhost:11434")
    assert local.api_key
    assert model_from({}) == PAPER_MODEL
    assert model_from({"AUGMARL_LLM_MODEL": "llama3"}) == "llama3"


def test_nothing_set_names_the_variables_and_the_other_oracles() -> None:
    with pytest.raises(UsageError, match=r"AUGMARL_LLM_BASE_URL.*AUGMARL_LLM_API_KEY.*oracle=heuristic"):
        endpoint_from({})


def test_secrets_are_in_no_representation() -> None:
    endpoint = endpoint_from({"AUGMARL_LLM_BASE_URL": "https://me:pw@host:8/v1?token=x", "AUGMARL_LLM_API_KEY": "sk-1"})
    assert endpoint.host == "host:8"
    assert not {"sk-1", "pw", "token"} & set(repr(endpoint).replace("'", " ").split())
    assert "sk-1" not in repr(endpoint)
    assert endpoint.hide_key("Incorrect key sk-1!") == "Incorrect key ***!"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BASE_URL", "localhost:1/v1", "http://"),
        ("REQUESTS_PER_MINUTE", "0", "a number above 0"),
        ("REQUESTS_PER_MINUTE", "many", "a number above 0"),
        ("TIMEOUT", "nan", "a number above 0"),
        ("CONCURRENCY", "0", "1 or more"),
        ("RETRIES", "-1", "0 or more"),
    ],
)
def test_senseless_values_are_refused_by_name(name: str, value: str, expected: str) -> None:
    environment = {"AUGMARL_LLM_API_KEY": "sk-1", f"AUGMARL_LLM_{name}": value}
    with pytest.raises(UsageError, match=rf"AUGMARL_LLM_{name}.*{expected}"):
        endpoint_from(environment)


def test_auto_is_the_heuristic_unless_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_oracle("auto") == "heuristic"
    monkeypatch.setenv("AUGMARL_LLM_BASE_URL", "http://localhost:1/v1")
    assert resolve_oracle("auto") == "llm"
    assert resolve_oracle("heuristic") == "heuristic"
    with pytest.raises(UsageError, match=r"no oracle 'gpt'.*auto, heuristic, llm, privileged"):
        resolve_oracle("gpt")
