"""The language-model oracle against a real server on this machine, well-behaved and not."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from methods.labelling import chat
from methods.labelling.answer_cache import AnswerCache, cache_folder
from methods.labelling.endpoint import Endpoint
from methods.labelling.language_model import FAILURES_IN_A_ROW, LanguageModelOracle
from methods.labelling.windows import LabelWindows
from tasks.common.errors import StorageError, UsageError
from tasks.spec import TaskSpec
from tests.chat_server import KEY, ChatServer, Reply, Script, chat_server, fault, said
from tests.unit.labelling.conftest import spread_windows

pytest.importorskip("openai")
LOGGER = logging.getLogger("labelling-test")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "FIRST_PAUSE_SECONDS", 0.001)


def windows_of(count: int) -> LabelWindows:
    """Windows that differ, so that each has a question of its own."""
    return spread_windows([[[1.0, 0.8, 0.5], [0.7, 0.8, 0.001 * i]] for i in range(count)])


def oracle_at(server: ChatServer, spec: TaskSpec, tokens: int = 10**9, **settings: float) -> LanguageModelOracle:
    values = {"requests_per_minute": 1e6, "concurrency": 4, "timeout_seconds": 5.0, "retries": 2, **settings}
    endpoint = Endpoint(base_url=server.base_url, api_key=KEY, **values)  # type: ignore[arg-type]
    return LanguageModelOracle(spec, "gpt-4o-mini", tokens, LOGGER, endpoint)


def ignore(done: int, total: int, message: str) -> None:
    """No progress."""


def always(reply: Reply) -> Script:
    return lambda number, document: reply


def test_every_window_is_asked_once_with_model_key_and_question(spread: TaskSpec) -> None:
    with chat_server(lambda number, document: said(f'Well. {{"agent": {number % 3}}}')) as server:
        oracle = oracle_at(server, spread, concurrency=1)
        labels = oracle.label(windows_of(6), ignore)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert set(server.keys) == {f"Bearer {KEY}"}
    first = server.requests[0]
    assert (first["path"], first["model"], first["temperature"]) == ("/v1/chat/completions", "gpt-4o-mini", 0.0)
    assert "nearest landmark" in first["messages"][1]["content"]
    assert oracle.report() == {
        "model": "gpt-4o-mini",
        "windows": 6,
        "labelled": 6,
        "unreadable": 0,
        "without_answer": 0,
        "cached": 0,
        "asked": 6,
        "retried": 0,
        "failed": 0,
        "over_budget": 0,
        "prompt_tokens": 600,
        "answer_tokens": 120,
    }


def test_equal_windows_share_one_question(spread: TaskSpec) -> None:
    with chat_server(always(said("1"))) as server:
        labels = oracle_at(server, spread).label(windows_of(1).take(np.zeros(5, dtype=np.int64)), ignore)
    assert labels.tolist() == [1] * 5
    assert len(server.requests) == 1


def test_a_second_labelling_sends_nothing(spread: TaskSpec) -> None:
    with chat_server(always(said("2"))) as server:
        oracle_at(server, spread).label(windows_of(5), ignore)
    with chat_server(always(fault(500))) as server:
        oracle = oracle_at(server, spread)
        assert oracle.label(windows_of(5), ignore).tolist() == [2] * 5
        assert not server.requests
    assert (oracle.report()["cached"], oracle.report()["asked"]) == (5, 0)


def test_another_model_is_asked_anew(spread: TaskSpec) -> None:
    with chat_server(always(said("2"))) as server:
        oracle_at(server, spread).label(windows_of(2), ignore)
        other = oracle_at(server, spread)
        other.model = "llama3"
        other.label(windows_of(2), ignore)
    assert [document["model"] for document in server.requests].count("llama3") == 2


def test_an_interrupted_labelling_goes_on_where_it_was(spread: TaskSpec) -> None:
    def stop_after_three(done: int, total: int, message: str) -> None:
        if done >= 3:
            raise TimeoutError("the time is over")

    with chat_server(always(said("0"))) as server:
        with pytest.raises(TimeoutError):
            oracle_at(server, spread, concurrency=1).label(windows_of(8), stop_after_three)
        asked = len(server.requests)
        assert 3 <= asked <= 4  # one may have been in flight
        oracle = oracle_at(server, spread, concurrency=1)
        assert oracle.label(windows_of(8), ignore).tolist() == [0] * 8
    assert oracle.report()["cached"] == 3
    assert len(server.requests) == asked + 5


@pytest.mark.parametrize(
    "bad",
    [
        fault(429, "slow down", retry_after="0.01"),
        fault(500, "oops"),
        fault(503),
        Reply(b"<html>gateway</html>", status=502, content_type="text/html"),
        Reply(b"not json at all"),
        Reply(b'{"object": "chat.completion", "choices": []}'),
        Reply(b'{"choices": null}'),
        Reply(b'["a", "list"]'),
        Reply(b"<html>login</html>", content_type="text/html"),
        Reply(b'{"choices": [{"message": {"content": ["x"]}}]}'),
        Reply(said("1").body, delay=0.6),
    ],
    ids=["429", "500", "503", "502-html", "no-json", "no-choices", "null", "list", "html", "no-text", "time-out"],
)
def test_what_may_pass_is_tried_again(spread: TaskSpec, bad: Reply) -> None:
    with chat_server(lambda number, document: bad if number == 0 else said("1")) as server:
        oracle = oracle_at(server, spread, concurrency=1, timeout_seconds=0.3)
        assert oracle.label(windows_of(2), ignore).tolist() == [1, 1]
    assert len(server.requests) == 3
    assert oracle.report()["retried"] == 1


def test_the_servers_wish_for_a_pause_is_kept(spread: TaskSpec) -> None:
    with chat_server(lambda number, _: fault(429, retry_after="0.3") if number == 0 else said("1")) as server:
        oracle_at(server, spread).label(windows_of(1), ignore)
    assert server.times[1] - server.times[0] >= 0.3


def test_a_question_without_an_answer_is_counted_and_the_others_stay(spread: TaskSpec) -> None:
    def script(number: int, document: dict[str, object]) -> Reply:
        return fault(500, "boom") if "0.001" in str(document["messages"]) else said("2")

    with chat_server(script) as server:
        oracle = oracle_at(server, spread)
        assert oracle.label(windows_of(4), ignore).tolist() == [2, -1, 2, 2]
        assert len(server.requests) == 3 + 3
        assert (oracle.report()["failed"], oracle.report()["without_answer"]) == (1, 1)
        oracle.label(windows_of(4), ignore)  # a failure is not kept: it is asked again
    assert len(server.requests) == 3 + 3 + 3


def test_a_refused_question_is_not_repeated(spread: TaskSpec) -> None:
    with chat_server(lambda n, _: fault(400, "too long") if n == 0 else said("2")) as server:
        oracle = oracle_at(server, spread, concurrency=1)
        assert oracle.label(windows_of(3), ignore).tolist() == [-1, 2, 2]
    assert len(server.requests) == 3


def test_garbage_is_dropped_and_not_asked_again(spread: TaskSpec) -> None:
    texts = ["no idea", '{"agent": 9}', '{"agent": 1}', None]
    with chat_server(lambda number, document: said(texts[number])) as server:
        oracle = oracle_at(server, spread, concurrency=1)
        assert oracle.label(windows_of(4), ignore).tolist() == [-1, -1, 1, -1]
        assert oracle.report()["unreadable"] == 3
        oracle.label(windows_of(4), ignore)
    assert len(server.requests) == 4


def test_nothing_but_garbage_is_an_error(spread: TaskSpec) -> None:
    with chat_server(always(said("who knows"))) as server, pytest.raises(UsageError, match="3 unreadable, 0 without"):
        oracle_at(server, spread).label(windows_of(3), ignore)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (fault(401, f"Incorrect API key provided: {KEY}"), r"refused the key \(HTTP 401\).*AUGMARL_LLM_API_KEY"),
        (fault(403), r"refused the key \(HTTP 403\)"),
        (fault(404, f"no such model; {KEY}"), r"knows no model 'gpt-4o-mini'.*AUGMARL_LLM_MODEL"),
        (fault(429, "pay", code="insufficient_quota"), r"account at 127\.0\.0\.1:\d+ is used up"),
    ],
    ids=["401", "403", "404", "quota"],
)
def test_what_no_retry_mends_ends_the_labelling_at_once(spread: TaskSpec, reply: Reply, message: str) -> None:
    with chat_server(always(reply)) as server:
        with pytest.raises(UsageError, match=f"{message}.*Other oracles: oracle=heuristic") as caught:
            oracle_at(server, spread, concurrency=1).label(windows_of(50), ignore)
        assert len(server.requests) == 1
    assert KEY not in str(caught.value)


def test_an_endpoint_that_is_down_is_told_before_all_questions_were_tried(spread: TaskSpec) -> None:
    with chat_server(always(fault(500, f"broken {KEY}"))) as server:
        with pytest.raises(UsageError, match=f"{FAILURES_IN_A_ROW} questions in a row.*HTTP 500") as caught:
            oracle_at(server, spread, concurrency=1, retries=0).label(windows_of(100), ignore)
        assert len(server.requests) <= FAILURES_IN_A_ROW + 1
    assert KEY not in str(caught.value)


def test_nobody_listens(spread: TaskSpec) -> None:
    server = ChatServer(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match=r"no usable answer.*3 without an answer \(the last: no connection to 127"):
        oracle_at(server, spread, retries=1).label(windows_of(3), ignore)


def test_no_more_tokens_are_used_than_allowed(spread: TaskSpec) -> None:
    with chat_server(always(said("1", usage=(900, 100)))) as server:
        oracle = oracle_at(server, spread, tokens=3_500, concurrency=1)
        labels = oracle.label(windows_of(10), ignore)
    assert len(server.requests) == 3  # a fourth could pass 3,500 together with what was used
    assert (labels >= 0).sum() == 3
    report = oracle.report()
    assert (report["over_budget"], report["without_answer"]) == (7, 7)
    assert report["prompt_tokens"] + report["answer_tokens"] == 3_000


def test_tokens_are_estimated_where_the_server_counts_none(spread: TaskSpec) -> None:
    with chat_server(always(said("agent 1!", usage=None))) as server:
        oracle = oracle_at(server, spread)
        oracle.label(windows_of(1), ignore)
    length = sum(len(message["content"]) for message in server.requests[0]["messages"])
    assert oracle.report()["prompt_tokens"] == length // 4
    assert oracle.report()["answer_tokens"] == 2


def test_the_rate_is_kept(spread: TaskSpec) -> None:
    with chat_server(always(said("1"))) as server:
        oracle_at(server, spread, requests_per_minute=1200.0).label(windows_of(6), ignore)  # one every 50 ms
    assert max(server.times) - min(server.times) >= 0.15  # five gaps, less what the first connection took


def test_no_more_are_in_flight_than_allowed(spread: TaskSpec) -> None:
    reply = said("1")
    with chat_server(always(Reply(reply.body, delay=0.05))) as server:
        oracle_at(server, spread, concurrency=3).label(windows_of(12), ignore)
    assert 2 <= server.most_at_once <= 3


def test_the_estimate_comes_first_and_names_no_key(spread: TaskSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), chat_server(always(said("1"))) as server:
        oracle_at(server, spread).label(windows_of(4), ignore)
    ours = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    assert "about 4 windows, 0 more are cached" in ours[0]
    assert "at list price" in ours[0]
    assert KEY not in caplog.text


def test_a_deadline_ends_the_labelling_soon(spread: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from methods.labelling import language_model

    monkeypatch.setattr(language_model, "_LOOK_SECONDS", 0.05)

    def over(done: int, total: int, message: str) -> None:
        raise TimeoutError("the time is over")

    with chat_server(always(Reply(said("1").body, delay=3.0))) as server:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            oracle_at(server, spread).label(windows_of(4), over)
        assert time.monotonic() - start < 1.5


def test_a_cache_that_is_none_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite3").write_bytes(b"this is no database, " * 100)
    with pytest.raises(StorageError, match=r"answers\.sqlite3 cannot be opened.*AUGMARL_LLM_CACHE"):
        AnswerCache(tmp_path)


def test_the_cache_lives_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "answers"
    monkeypatch.delenv("AUGMARL_LLM_CACHE")
    monkeypatch.setenv("AUGMARL_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / "llm"


def test_no_answer_in_the_cache_names_the_key(spread: TaskSpec) -> None:
    with chat_server(always(said("1"))) as server:
        oracle_at(server, spread).label(windows_of(2), ignore)
    path = cache_folder() / "answers.sqlite3"
    assert KEY.encode() not in path.read_bytes()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (2,)
    connection.close()
