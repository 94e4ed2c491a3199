"""One question to a chat endpoint: paced, retried where that may help, and errors that say what to do."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

from methods.labelling.answer_cache import Answer
from methods.labelling.endpoint import API_KEY, BASE_URL, MODEL, Endpoint
from methods.labelling.oracle import others_than
from methods.labelling.prompts import Message
from tasks.common.errors import MissingDependencyError, UsageError

TEMPERATURE = 0.0
ANSWER_TOKENS = 512
"""Room for the reasoning and the answer; a longer text is cut and mostly unreadable."""

FIRST_PAUSE_SECONDS = 1.0  # doubles with every retry
LONGEST_PAUSE_SECONDS = 60.0
CHARACTERS_PER_TOKEN = 4  # of English text, roughly; used where a server counts nothing


class NoAnswerError(Exception):
    """One question has no answer: the retries are used up, or the server refuses this question."""


class StoppedError(Exception):
    """The labelling ends; nothing more is asked."""


class Pacer:
    """Starts that are at least 60 / rate seconds apart, over all threads."""

    def __init__(self, per_minute: float, stop: threading.Event) -> None:
        self._interval, self._stop = 60.0 / per_minute, stop
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        """Returns when the next request may start. Raises StoppedError if the labelling ends first."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        if self._stop.wait(max(0.0, start - now)):
            raise StoppedError


class ChatClient:
    """Asks an endpoint; may be used by many threads.

    Attributes:
        stop: set it to end all waiting.
        retried: how often a question was asked again.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        try:
            self._openai: Any = importlib.import_module("openai")
        except ImportError as error:
            raise MissingDependencyError(
                f"The llm oracle needs the package openai: pip install 'augmarl[llm]'. {others_than('llm')}"
            ) from error
        self.endpoint, self.model, self.stop = endpoint, model, threading.Event()
        self.retried = 0
        self._count = threading.Lock()
        self._pacer = Pacer(endpoint.requests_per_minute, self.stop)
        self._client = self._openai.OpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key, timeout=endpoint.timeout_seconds, max_retries=0
        )

    def close(self) -> None:
        """Ends all waiting and closes the connections."""
        self.stop.set()
        self._client.close()

    def ask(self, messages: tuple[Message, ...]) -> Answer:
        """The model's answer to one question.

        Raises:
            UsageError: for what no retry mends: a refused key, an unknown model or address, an exhausted account.
            NoAnswerError: if this question has no answer.
            StoppedError: if the labelling ended meanwhile.
        """
        for attempt in range(self.endpoint.retries + 1):
            self._pacer.wait()
            try:
                return self._answer(self._request(messages), messages)
            except _TransientError as error:
                if attempt == self.endpoint.retries:
                    raise NoAnswerError(f"{error} ({attempt + 1} tries)") from None
                pause = FIRST_PAUSE_SECONDS * 2**attempt if error.pause is None else error.pause
            with self._count:
                self.retried += 1
            if self.stop.wait(min(pause, LONGEST_PAUSE_SECONDS)):
                raise StoppedError
        raise AssertionError("the last attempt returns or raises")

    def _request(self, messages: tuple[Message, ...]) -> Any:
        """The server's response; its faults sorted into those that may pass, those that stay, and refusals."""
        openai = self._openai
        try:
            return self._client.chat.completions.create(
                model=self.model, messages=list(messages), temperature=TEMPERATURE, max_tokens=ANSWER_TOKENS
            )
        except openai.APITimeoutError:
            raise _TransientError(f"no answer within {self.endpoint.timeout_seconds:g} s") from None
        except openai.APIConnectionError as error:
            raise _TransientError(self._hidden(f"no connection to {self.endpoint.host}: {error.__cause__}")) from None
        except openai.APIStatusError as error:
            raise self._sorted(error) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:  # a body that is no JSON, or odd
            raise _TransientError(self._hidden(f"an answer that is none of the protocol: {error}")) from None

    def _sorted(self, error: Any) -> Exception:
        """What a status of the server means for the labelling."""
        status, host = int(error.status_code), self.endpoint.host
        if status in (401, 403):  # its text is left out: services repeat part of the key in it
            return UsageError(f"{host} refused the key (HTTP {status}). Set {API_KEY} to a valid one. {_others()}")
        said = self._hidden(str(error.message))
        if status == 404:
            return UsageError(
                f"{host} knows no model {self.model!r} or no such address (HTTP 404: {said}). Check {MODEL} and "
                f"{BASE_URL}, which must contain the version, like http://localhost:11434/v1. {_others()}"
            )
        if error.code == "insufficient_quota":
            return UsageError(f"The account at {host} is used up (HTTP {status}: {said}). {_others()}")
        if status in (408, 409, 429) or status >= 500:
            return _TransientError(f"HTTP {status}: {said}", _seconds(error.response.headers.get("retry-after")))
        return NoAnswerError(f"HTTP {status}: {said}")

    def _answer(self, response: Any, messages: tuple[Message, ...]) -> Answer:
        """Text and token counts of a response.

        Raises:
            _TransientError: if it has not the protocol's form.
        """
        try:
            text = response.choices[0].message.content
        except (AttributeError, IndexError, TypeError, KeyError):
            text = 0
        if not isinstance(text, str | None):
            raise _TransientError("an answer that is none of the protocol: no text in choices[0].message.content")
        text = text or ""  # a refusal has none
        usage = getattr(response, "usage", None)
        asked, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        return Answer(
            text=text,
            prompt_tokens=asked if isinstance(asked, int) else estimated_tokens(messages),
            answer_tokens=written if isinstance(written, int) else len(text) // CHARACTERS_PER_TOKEN,
        )

    def _hidden(self, text: str) -> str:
        return self.endpoint.hide_key(text)[:300]


class _TransientError(Exception):
    """A fault that may have passed by the next try; `pause` is what the server asks for, in seconds."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


def estimated_tokens(messages: tuple[Message, ...]) -> int:
    """Tokens of a question, at four characters each."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN


def _others() -> str:
    return others_than("llm")


def _seconds(header: str | None) -> float | None:
    """The value of a Retry-After header; its other form, a date, counts as absent."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
