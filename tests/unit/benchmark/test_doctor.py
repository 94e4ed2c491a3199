"""What `bench doctor` says of the language model, which it does not ask."""

from __future__ import annotations

import pytest

from benchmark.doctor import _language_model


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL", "TIMEOUT"):
        monkeypatch.delenv(f"AUGMARL_LLM_{name}", raising=False)


def test_without_an_endpoint_it_says_what_to_set() -> None:
    finding = _language_model()
    assert finding.level == "optional"
    assert "AUGMARL_LLM_BASE_URL" in finding.detail


def test_an_endpoint_is_named_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGMARL_LLM_BASE_URL", "https://me:hidden@models.local:81/v1")
    monkeypatch.setenv("AUGMARL_LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("AUGMARL_LLM_MODEL", "llama3")
    finding = _language_model()
    assert (finding.level, finding.detail) == ("ok", "llama3 at models.local:81")


def test_a_senseless_variable_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGMARL_LLM_API_KEY", "sk-secret")
    monkeypatch.setenv("AUGMARL_LLM_TIMEOUT", "soon")
    finding = _language_model()
    assert finding.level == "problem"
    assert "AUGMARL_LLM_TIMEOUT" in finding.detail
