"""A server for a built site, on this machine only."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tasks.common.errors import UsageError


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not news."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server bound to 127.0.0.1; port 0 takes a free one. Raises UsageError if the port is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_QuietHandler, directory=str(folder)))
    except OSError as error:
        raise UsageError(f"Port {port} cannot be used ({error.strerror}). Choose another with --port.") from error
