"""`bench`, the command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from benchmark.cli.root import app, main

__all__ = ["app", "main"]
