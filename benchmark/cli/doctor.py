"""`bench doctor`: what this machine has and lacks."""

from __future__ import annotations

from dataclasses import asdict

import typer

from benchmark.cli.options import AsJson, Home, Results, print_json, print_rows


def doctor(results: Results = None, home: Home = None, as_json: AsJson = False) -> None:
    """Say what this machine has, what it lacks, and how to get it. Exit code 1 if a run could not work."""
    from benchmark.doctor import examine
    from benchmark.folders import home_folder, results_folder
    from tasks.common.errors import ExitCode

    findings = examine(home_folder(home), results_folder(results))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_rows(("", "what", "detail"), [(finding.level, finding.name, finding.detail) for finding in findings])
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(int(ExitCode.INTERNAL))
