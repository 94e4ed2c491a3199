"""Commands that are imported when they are called: listing them costs a line of text each."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from tasks.common.errors import UsageError


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command or group of commands: where it is (`module:attribute`), and its line in the help."""

    target: str
    help: str

    def load(self, name: str) -> Any:
        """Imports it. A function becomes a command."""
        module, _, attribute = self.target.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        if not isinstance(loaded, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(loaded)
            loaded = single
        command = typer.main.get_command(loaded)
        command.name = name
        return command


COMMANDS = {
    "run": LazyCommand("benchmark.cli.run:run", "Run every cell of a matrix that has no record yet."),
    "plan": LazyCommand("benchmark.cli.plan:plan", "Show what a run would do: cells, cache, skips, estimated time."),
    "explain": LazyCommand("benchmark.cli.explain:explain", "Say stage by stage why a cell is cached or not."),
    "list": LazyCommand("benchmark.cli.listing:list_names", "List tasks, datasets, augmenters, learners, matrices."),
    "show": LazyCommand("benchmark.cli.listing:show", "Show one of them: parameters, defaults, what it supports."),
    "results": LazyCommand("benchmark.cli.results:app", "Query all run records with SQL."),
    "doctor": LazyCommand("benchmark.cli.doctor:doctor", "Say what this machine has and lacks."),
    "cache": LazyCommand("benchmark.cli.cache:app", "Size of the cached artefacts, and how to prune them."),
    "data": LazyCommand("benchmark.cli.data:app", "Build, inspect, verify, import and export offline datasets."),
    "policy": LazyCommand("benchmark.behaviour.command:app", "Train and evaluate behaviour policies."),
    "plugin": LazyCommand("benchmark.cli.plugin:app", "Start a plugin package, or check a method's contract."),
    "timing": LazyCommand("benchmark.timing.command:app", "Measure speed, as ratios."),
    # By name, not by import: the leaderboard stands above the harness, which must not know it (design, section 1).
    "report": LazyCommand("leaderboard.report:report_command", "Print the ranking in the terminal."),
    "leaderboard": LazyCommand("leaderboard.command:app", "Build the pages from run records, or serve them."),
}


class LazyGroup(TyperGroup):
    """The root command, whose sub-commands are the table above."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself when it is called; otherwise a stand-in with its line of help."""
        if cmd_name not in COMMANDS:
            return None
        if ctx.meta.get("augmarl.called") == cmd_name:
            return COMMANDS[cmd_name].load(cmd_name)
        return typer.core.TyperCommand(cmd_name, help=COMMANDS[cmd_name].help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Notes which command is called, so that it alone is imported.

        Raises:
            UsageError: for an unknown command, with the nearest ones.
        """
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            nearest = difflib.get_close_matches(args[0], COMMANDS, n=3, cutoff=0.0)
            raise UsageError(
                f"Unknown command {args[0]!r}. Did you mean {' or '.join(map(repr, nearest))}? "
                "`bench --help` shows all commands."
            )
        ctx.meta["augmarl.called"] = args[0] if args else None
        return super().resolve_command(ctx, args)
