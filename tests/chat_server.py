"""A real HTTP server on this machine that speaks the chat-completions protocol, and breaks it on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-0123456789abcdef"


@dataclass
class Reply:
    """What the server does with one request: after `delay` seconds, this status, these headers, this body."""

    body: bytes
    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


Script = Callable[[int, dict[str, Any]], Reply]
"""The reply to the request with this number, counted from 0, and this JSON document."""


def said(text: str | None, usage: tuple[int, int] | None = (100, 20)) -> Reply:
    """A normal completion with this text."""
    document: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }
    if usage is not None:
        document["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Reply(json.dumps(document).encode())


def fault(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error in the form that services give it."""
    body = json.dumps({"error": {"message": message, "type": "fault", "code": code}}).encode()
    return Reply(body, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class ChatServer:
    """The running server: where it is and what it was asked."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def chat_server(script: Script) -> Iterator[ChatServer]:
    """Serves until the block ends."""
    lock, at_once = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal at_once
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.requests)
                server.requests.append(document | {"path": self.path})
                server.keys.append(self.headers.get("Authorization", ""))
                server.times.append(time.monotonic())
                at_once += 1
                server.most_at_once = max(server.most_at_once, at_once)
            reply = script(number, document)
            released.wait(reply.delay)
            with lock:
                at_once -= 1
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.content_type, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:  # the client has given up waiting
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is part of the tests."""

    released = threading.Event()
    http = Server(("127.0.0.1", 0), Handler)
    server = ChatServer(base_url=f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        released.set()
        http.shutdown()
        http.server_close()
        thread.join()
