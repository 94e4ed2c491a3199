"""`bench policy`: train and evaluate behaviour policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from benchmark.behaviour.train import Progress

app = typer.Typer(
    help="Train and evaluate the behaviour policies that record the data.", no_args_is_help=True, add_completion=False
)


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="A task, e.g. mpe/tag\\[actions=discrete] or smac/3m.")],
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Length in environment steps.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length in seconds; 300 if neither is given.")] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="Another than the task's first; in battles: qmix, for robots: matd3.")
    ] = None,
    prey: Annotated[bool, typer.Option("--prey", help="Train the task's prey instead.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the checkpoints; the package's by default.")] = None,
) -> None:
    """Train a task's behaviour policies: MATD3 for particles, MAPPO for battles and robots. Every level has a card."""
    from benchmark.behaviour.prey import train_prey  # here: `bench --help` must not load torch
    from benchmark.behaviour.train import train_behaviour

    if prey:
        for name, value in train_prey(task, seed, out=out, progress=_print_progress).items():
            typer.echo(f"{name}: {value:.1f} per predator and episode")
        return
    if steps is None and seconds is None:
        seconds = 300.0
    means = train_behaviour(
        task, seed, steps=steps, seconds=seconds, algorithm=algorithm, out=out, progress=_print_progress
    )
    for level, mean in means.items():
        typer.echo(f"{level}: mean team return {mean:.1f}")


@app.command()
def evaluate(
    task: Annotated[str, typer.Argument(help="A task, e.g. mpe/spread.")],
    level: Annotated[str, typer.Option(help="random, or a level of `bench show task`.")] = "expert",
    episodes: Annotated[int, typer.Option(help="Episodes.", min=2)] = 1000,
    seed: Annotated[int | None, typer.Option(help="Seed of the episodes; the cards' by default.")] = None,
) -> None:
    """Measure the return of a shipped behaviour policy."""
    from benchmark.behaviour.evaluation import EVALUATION_SEED, RandomPolicy, play, summary
    from tasks.registry import make_task

    chosen = make_task(task)
    episode_seed = EVALUATION_SEED if seed is None else seed
    policy = RandomPolicy(chosen.spec, episode_seed) if level == "random" else chosen.behaviour_policy(level)
    result = summary(*play(chosen, policy, episodes, episode_seed))
    typer.echo(f"{chosen.spec.id} {level}: team return {result['mean']} ± {result['std']} over {episodes} episodes")
    if "win_rate" in result:
        typer.echo(f"win rate: {result['win_rate']}")
    typer.echo(f"deciles: {result['deciles']}")


@app.command()
def references(
    family: Annotated[str, typer.Option(help="mpe, smac or mamujoco (--episodes 100 is a minute a robot).")] = "mpe",
    episodes: Annotated[int, typer.Option(help="Episodes a policy.", min=2)] = 1000,
) -> None:
    """Measure the score references of a family's tasks; rewrite its data file."""
    from benchmark.behaviour.references import measure_references

    for task_id, (random_return, expert_return) in measure_references(family, episodes).items():
        typer.echo(f"{task_id}: random {random_return:.1f}, expert {expert_return:.1f}")


def _print_progress(progress: Progress) -> None:
    total = "" if progress.total_steps is None else f" of {progress.total_steps}"
    typer.echo(
        f"{progress.env_steps}{total} steps, {progress.wall_seconds:.0f} s: return {progress.mean_return:.1f}", err=True
    )
