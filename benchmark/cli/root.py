"""The root of `bench`: global flags, exit codes, and how an error is shown."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from benchmark.cli.lazy import LazyGroup
from tasks.common.errors import AugMARLError, ExitCode

app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_DEBUG = False


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            typer.echo(f"augmarl {metadata.version('augmarl')}")
        except metadata.PackageNotFoundError:
            typer.echo("augmarl, a checkout that is not installed")
        raise typer.Exit


@app.callback()
def bench(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Which data augmentation really helps offline multi-agent RL?

    Every flag has an environment variable, AUGMARL_RESULTS for example; `--help` of a command names them.
    """
    global _DEBUG  # read by `main` alone, after the command has failed
    _DEBUG = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see `tasks.common.errors.ExitCode`)."""
    try:
        with _sigterm_as_ctrl_c():
            result = app(
                args=list(sys.argv[1:] if arguments is None else arguments),
                prog_name="bench",
                standalone_mode=False,
                auto_envvar_prefix="AUGMARL",
            )
    except AugMARLError as error:
        return _fail(error, str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        result = int(ExitCode.INTERRUPTED)
    except SystemExit as error:  # ours are returned; a plugin that ends the program must not look like success
        if isinstance(error.__context__, BrokenPipeError):  # `bench list | head`: the parser leaves so
            return ExitCode.OK
        return _fail(error, f"Something called sys.exit({error.code!r}); a plugin?", ExitCode.INTERNAL)
    except BrokenPipeError:  # `bench list | head`
        sys.stderr.close()
        return ExitCode.OK
    except Exception as error:
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if callable(show) and isinstance(code, int):  # a usage error of the parser
            show()
            return ExitCode.USAGE if code == int(ExitCode.USAGE) else code
        name = type(error).__name__
        return _fail(
            error,
            f"Internal error: {name}: {error}. `bench --debug ...` shows where; please report it.",
            ExitCode.INTERNAL,
        )
    if result == ExitCode.INTERRUPTED:  # newer versions of typer return it, older ones raise
        typer.echo("Interrupted. Everything finished so far is kept; the same command resumes.", err=True)
    return result if isinstance(result, int) else ExitCode.OK


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Ends a command that is told to terminate as Ctrl-C does: workers are killed, nothing that is done is lost."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _fail(error: BaseException, message: str, code: ExitCode) -> int:
    if _DEBUG:
        traceback.print_exception(error, file=sys.stderr)
    typer.echo(f"Error: {message}", err=True)
    return code
