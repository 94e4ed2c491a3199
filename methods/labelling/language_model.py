"""The oracle of the paper: a language model that reads windows as text (CODI, Sec. 3.1)."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.labelling.answer_cache import Answer, AnswerCache, cache_folder, request_hash
from methods.labelling.answers import parse_answer
from methods.labelling.chat import ANSWER_TOKENS, TEMPERATURE, ChatClient, NoAnswerError, estimated_tokens
from methods.labelling.endpoint import PRICES, Endpoint, endpoint_from
from methods.labelling.oracle import UNDECIDED, Oracle, Progress, others_than
from methods.labelling.prompts import Message, prompt_messages
from methods.labelling.windows import LabelWindows
from tasks.common.errors import UsageError
from tasks.spec import TaskSpec

FAILURES_IN_A_ROW = 20
"""Questions without an answer, one after another, after which the endpoint counts as down."""

_LOOK_SECONDS = 2.0  # between two looks at the deadline
_TYPICAL_ANSWER_TOKENS = 150  # a few sentences; for the estimate
_SETTINGS = {"temperature": TEMPERATURE, "max_tokens": float(ANSWER_TOKENS)}

Question = tuple[Message, ...]


class LanguageModelOracle(Oracle):
    """Asks a chat endpoint about every window, and keeps the answers on disk.

    Args:
        max_tokens: questions and answers together, cached ones included; what lies beyond is not asked.
        endpoint: where to ask; None: the one that the environment names.
        folder: of the cache of answers; None: `answer_cache.cache_folder()`.

    Raises:
        UsageError: if no endpoint is given and the environment names none.
    """

    name = "llm"

    def __init__(
        self,
        spec: TaskSpec,
        model: str,
        max_tokens: int,
        logger: logging.Logger,
        endpoint: Endpoint | None = None,
        folder: Path | None = None,
    ) -> None:
        self.spec, self.model, self.max_tokens, self._logger = spec, model, max_tokens, logger
        self._endpoint = endpoint_from() if endpoint is None else endpoint
        self._folder = cache_folder() if folder is None else folder
        self._report: dict[str, Any] = {}

    def label(self, windows: LabelWindows, progress: Progress) -> NDArray[np.int64]:
        """Cached answers first, then the endpoint's; unreadable and missing ones are undecided and counted.

        Raises:
            UsageError: if the endpoint refuses to work, is down, or gave no readable answer at all. Answers that
                came before are kept.
            MissingDependencyError: without the package `openai`.
        """
        asked = prompt_messages(self.spec, windows)
        hashes = [request_hash(messages, _SETTINGS) for messages in asked]
        questions = dict(zip(hashes, asked, strict=True))  # equal windows are asked once
        with AnswerCache(self._folder) as cache:
            answers = cache.find(self.model, list(questions))
            labelling = _Labelling(self.model, self.max_tokens, questions, answers)
            if len(answers) < len(questions):
                self._logger.info(self._estimate(questions, answers))
                labelling.ask_all(ChatClient(self._endpoint, self.model), cache, progress)
        labels = np.full(len(windows), UNDECIDED, dtype=np.int64)
        for window, prompt in enumerate(hashes):
            if prompt in labelling.answers:
                labels[window] = parse_answer(labelling.answers[prompt].text, windows.n_agents)
        answered = np.array([prompt in labelling.answers for prompt in hashes], dtype=np.bool_)
        self._report = {
            "model": self.model,
            "windows": len(windows),
            "labelled": int((labels >= 0).sum()),
            "unreadable": int((answered & (labels < 0)).sum()),
            "without_answer": int((~answered).sum()),
            **labelling.counts(),
        }
        self._logger.info("Labelled %d of %d windows: %s", self._report["labelled"], len(windows), self._report)
        if len(windows) and not self._report["labelled"]:
            raise UsageError(self._nothing(labelling))
        return labels

    def report(self) -> Mapping[str, Any]:
        """Counts of windows, questions and tokens."""
        return self._report

    def _nothing(self, labelling: _Labelling) -> str:
        unreadable, silent = self._report["unreadable"], self._report["without_answer"]
        last = f" (the last: {labelling.last_failure})" if labelling.last_failure else ""
        return (
            f"{self.model!r} at {self._endpoint.host} gave no usable answer about {self._report['windows']} windows: "
            f"{unreadable} unreadable, {silent} without an answer{last}. {others_than(self.name)}"
        )

    def _estimate(self, questions: Mapping[str, Question], answers: Mapping[str, Answer]) -> str:
        """What asking will cost, before it starts."""
        open_ones = [messages for prompt, messages in questions.items() if prompt not in answers]
        read, written = sum(map(estimated_tokens, open_ones)), _TYPICAL_ANSWER_TOKENS * len(open_ones)
        minutes = len(open_ones) / self._endpoint.requests_per_minute
        text = (
            f"Asking {self.model!r} at {self._endpoint.host} about {len(open_ones):,} windows, {len(answers):,} more "
            f"are cached: about {read:,} tokens to read and {written:,} to write, at least {minutes:.1f} minutes"
        )
        if self.model in PRICES:
            of_read, of_written = PRICES[self.model]
            text += f", about ${(read * of_read + written * of_written) / 1e6:.2f} at list price"
        return f"{text}. No more than {self.max_tokens:,} tokens will be used."


class _Labelling:
    """The state of one labelling: questions by hash, the answers so far, and what was counted on the way."""

    def __init__(
        self, model: str, max_tokens: int, questions: Mapping[str, Question], answers: dict[str, Answer]
    ) -> None:
        self.model, self.max_tokens, self.questions, self.answers = model, max_tokens, questions, answers
        self.last_failure, self._row = "", 0
        self._tokens = sum(answer.prompt_tokens + answer.answer_tokens for answer in answers.values())
        self._reserved: dict[str, int] = {}  # of what is in flight
        self._counts: Counter[str] = Counter(cached=len(answers))

    def counts(self) -> dict[str, int]:
        """Questions and tokens, by what became of them."""
        names = ("cached", "asked", "retried", "failed", "over_budget")
        read = sum(answer.prompt_tokens for answer in self.answers.values())
        written = sum(answer.answer_tokens for answer in self.answers.values())
        return {name: self._counts[name] for name in names} | {"prompt_tokens": read, "answer_tokens": written}

    def ask_all(self, client: ChatClient, cache: AnswerCache, progress: Progress) -> None:
        """Asks what is open, in order, as many at once as the endpoint may have."""
        pending = deque(prompt for prompt in self.questions if prompt not in self.answers)
        flying: dict[Future[Answer], str] = {}
        pool = ThreadPoolExecutor(client.endpoint.concurrency, thread_name_prefix="labelling")
        try:
            while pending or flying:
                for prompt in self._affordable(pending, client.endpoint.concurrency - len(flying)):
                    flying[pool.submit(client.ask, self.questions[prompt])] = prompt
                finished = wait(flying, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done
                for future in finished:
                    self._take(flying.pop(future), future, cache, client)
                progress(len(self.answers), len(self.questions), f"labels from {self.model}")
        finally:
            client.close()
            pool.shutdown(wait=False, cancel_futures=True)  # what is in flight ends by its time-out
            self._counts["retried"] = client.retried

    def _affordable(self, pending: deque[str], places: int) -> Iterator[str]:
        """The next questions to send; once the tokens are used up, none is ever sent again."""
        while pending and places > 0:
            cost = estimated_tokens(self.questions[pending[0]]) + ANSWER_TOKENS
            if self._tokens + sum(self._reserved.values()) + cost > self.max_tokens:
                if self._reserved:
                    return  # what is in flight may turn out cheaper
                self._counts["over_budget"] += len(pending)
                pending.clear()
                return
            self._reserved[pending[0]] = cost
            places -= 1
            yield pending.popleft()

    def _take(self, prompt: str, future: Future[Answer], cache: AnswerCache, client: ChatClient) -> None:
        """Keeps an answer, or counts a failure; a row of failures ends the labelling."""
        self._counts["asked"] += 1
        del self._reserved[prompt]
        try:
            answer = future.result()
        except NoAnswerError as error:
            self._counts["failed"] += 1
            self.last_failure, self._row = str(error), self._row + 1
            if self._row >= FAILURES_IN_A_ROW:
                raise UsageError(
                    f"{client.endpoint.host} left {self._row} questions in a row without an answer; the last: {error}. "
                    f"{len(self.answers)} answers are kept: run again to go on. {others_than('llm')}"
                ) from None
            return
        self._row = 0
        cache.store(self.model, prompt, answer)
        self.answers[prompt] = answer
        self._tokens += answer.prompt_tokens + answer.answer_tokens
