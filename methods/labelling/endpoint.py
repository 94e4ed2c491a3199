"""The chat endpoint that the environment names: where it is, which model, and how hard it may be pressed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from methods.labelling.oracle import others_than
from tasks.common.errors import UsageError

PAPER_MODEL = "gpt-4o-mini"  # CODI, Sec. 3.1
PAPER_SERVICE = "https://api.openai.com/v1"  # where a key without a base URL belongs
PRICES = {"gpt-4o-mini": (0.15, 0.60)}
"""US dollars a million tokens read and written, list price; for the estimate before a labelling starts."""

BASE_URL, MODEL, API_KEY = "AUGMARL_LLM_BASE_URL", "AUGMARL_LLM_MODEL", "AUGMARL_LLM_API_KEY"
RATE, CONCURRENCY = "AUGMARL_LLM_REQUESTS_PER_MINUTE", "AUGMARL_LLM_CONCURRENCY"
TIMEOUT, RETRIES = "AUGMARL_LLM_TIMEOUT", "AUGMARL_LLM_RETRIES"
NO_KEY = "none"
"""Sent to servers that want no key; the protocol's clients insist on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible server. The key is in no representation of it.

    Attributes:
        base_url: with the version, e.g. `http://localhost:11434/v1`.
        requests_per_minute: of all threads together.
        concurrency: requests in flight.
        timeout_seconds: of one request.
        retries: after the first try, for what may pass: a full queue, a fault of the server, silence.
    """

    base_url: str = field(repr=False)
    api_key: str = field(repr=False)
    requests_per_minute: float = 300.0
    concurrency: int = 8
    timeout_seconds: float = 60.0
    retries: int = 5

    @property
    def host(self) -> str:
        """Host and port, without what a URL may carry of names and passwords."""
        parts = urlsplit(self.base_url)
        return parts.netloc.rpartition("@")[2] or "?"

    def hide_key(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self.api_key, "***") if self.api_key not in ("", NO_KEY) else text


def endpoint_from(environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint that these variables describe.

    A key alone means the service that the paper used; a base URL alone means a server that wants no key.

    Raises:
        UsageError: if neither is set, or a number makes no sense.
    """
    base_url, api_key = environment.get(BASE_URL, "").strip(), environment.get(API_KEY, "").strip()
    if not base_url and not api_key:
        raise UsageError(
            f"The llm oracle needs a chat endpoint: set {BASE_URL} (any OpenAI-compatible server) or {API_KEY}, and "
            f"{MODEL} unless it is {PAPER_MODEL}. {others_than('llm')}"
        )
    if base_url and urlsplit(base_url).scheme not in ("http", "https"):
        raise UsageError(f"{BASE_URL} must begin with http:// or https:// and name a server.")
    return Endpoint(
        base_url=base_url or PAPER_SERVICE,
        api_key=api_key or NO_KEY,
        requests_per_minute=_positive(environment, RATE, 300.0),
        concurrency=_whole(environment, CONCURRENCY, 8, at_least=1),
        timeout_seconds=_positive(environment, TIMEOUT, 60.0),
        retries=_whole(environment, RETRIES, 5, at_least=0),
    )


def model_from(environment: Mapping[str, str] = os.environ) -> str:
    """The model that the environment names, else the paper's."""
    return environment.get(MODEL, "").strip() or PAPER_MODEL


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise UsageError(f"{name}={text!r}, expected a number above 0 (default {default:g}).")
    return value


def _whole(environment: Mapping[str, str], name: str, default: int, at_least: int) -> int:
    text = environment.get(name, "").strip()
    value = int(text) if text.isdecimal() else (default if not text else -1)
    if value < at_least:
        raise UsageError(f"{name}={text!r}, expected a whole number of {at_least} or more (default {default}).")
    return value
