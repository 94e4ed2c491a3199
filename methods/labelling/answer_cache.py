"""Answers of language models on disk, so that a labelling that was interrupted asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs

from tasks.common.errors import StorageError

_TABLE = """CREATE TABLE IF NOT EXISTS answers (
    model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL, PRIMARY KEY (model, prompt)
) WITHOUT ROWID"""
_BATCH = 500  # names a query


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote, and the tokens that were counted for it."""

    text: str
    prompt_tokens: int
    answer_tokens: int


def cache_folder() -> Path:
    """AUGMARL_LLM_CACHE, else `llm` in AUGMARL_HOME or the platform's cache folder."""
    named, home = os.environ.get("AUGMARL_LLM_CACHE"), os.environ.get("AUGMARL_HOME")
    if named:
        return Path(named).expanduser().resolve()
    return (Path(home).expanduser().resolve() if home else Path(platformdirs.user_cache_dir("augmarl"))) / "llm"


def request_hash(messages: Sequence[object], settings: dict[str, float]) -> str:
    """64 hexadecimal digits of what a model is asked, and how."""
    return hashlib.sha256(json.dumps([messages, settings], sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """One SQLite file; every answer is on disk before the next one is asked for.

    Use it as a context manager, from one thread.

    Raises:
        StorageError: if the folder cannot be written, or the file is no such cache.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "answers.sqlite3"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Another process may be labelling too: wait for its write rather than fail.
            self._connection = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"The cache of answers {self.path} cannot be opened: {error}. Delete it, or set AUGMARL_LLM_CACHE "
                "to another folder."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def find(self, model: str, prompts: Sequence[str]) -> dict[str, Answer]:
        """The stored answers to these prompts, by the prompts' hashes."""
        found: dict[str, Answer] = {}
        for start in range(0, len(prompts), _BATCH):
            part = prompts[start : start + _BATCH]
            marks = ", ".join("?" * len(part))
            where = f"model = ? AND prompt IN ({marks})"
            rows = self._connection.execute(
                f"SELECT prompt, answer, prompt_tokens, answer_tokens FROM answers WHERE {where}", (model, *part)
            )
            found |= {prompt: Answer(*row) for prompt, *row in rows}
        return found

    def store(self, model: str, prompt: str, answer: Answer) -> None:
        """Keeps an answer, on disk when this returns.

        Raises:
            StorageError: if it cannot be written.
        """
        row = (model, prompt, answer.text, answer.prompt_tokens, answer.answer_tokens)
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise StorageError(f"The cache of answers {self.path} cannot be written: {error}.") from error
