"""Pointer-chasing against one walk after another, and the rules of a jump one by one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmark.checks import sample_dataset
from methods.augmenters.mbts import MBTS
from methods.base import Budget, Run
from methods.model_based_stitching.jumps import Jumps, TransitionGraph, decide, walk
from methods.model_based_stitching.model import StitchingModel
from methods.model_based_stitching.neighbours import nearest_rows
from methods.model_based_stitching.passes import Stitching, better_by_margin
from methods.model_based_stitching.steps import StepTensors
from methods.model_based_stitching.stitched import StitchedEpisodes, chosen_from, together
from tasks.datasets.offline import OfflineDataset

RADIUS, LIMIT, PASSES = 4.0, 4, 2


def fitted(shape: str, episodes: int = 12) -> tuple[OfflineDataset, StitchingModel, Run]:
    data, run = sample_dataset(shape, episodes=episodes).without_privileged(), Run(seeds=(3,), budget=Budget())
    augmenter = MBTS.tiny({"density_hidden": 4})
    augmenter.fit(data, run)
    return data, StitchingModel.from_arrays(augmenter.state(), data.spec, "cpu"), run


def stitching_of(shape: str, **changes: Any) -> tuple[Stitching, StitchingModel, OfflineDataset]:
    data, model, run = fitted(shape)
    augmenter = MBTS.tiny({"radius": RADIUS, "neighbours": LIMIT, "passes": PASSES, **changes})
    return Stitching(augmenter._settings(model, run.budget.transition), model, data, run), model, data


def one_after_another(
    stitching: Stitching, model: StitchingModel, data: OfflineDataset, passes: int
) -> list[dict[str, Any]]:
    """The method as one would first write it: every decision is taken where it is needed."""
    steps = StepTensors.of(data, model.scaling, "cpu")
    points = model.scaling.rows(data).astype(np.float64)

    def near(row: int) -> list[int]:
        distances = np.sqrt(((points - points[row]) ** 2).sum(axis=1))
        order = [j for j in np.lexsort((np.arange(len(points)), distances)) if j != row and distances[j] <= RADIUS]
        return order[:LIMIT]

    def log_densities(first: int, second: int) -> NDArray[np.float64]:
        mean, log_std = (t.double() for t in model.densities(steps, torch.tensor([first])))
        change = steps.changes(torch.tensor([first]), torch.tensor([second])).double()
        z = (change - mean) / log_std.exp()
        return (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)[:, 0].numpy()

    current = []
    for e in range(data.n_episodes):
        first, last = int(data.episode_starts[e]), int(data.episode_starts[e + 1])
        own = [
            {"s": t + e, "n": t + e + 1, "a": data.actions[t], "r": data.rewards[t], "jump": False}
            for t in range(first, last)
        ]
        current.append({"steps": own, "terminal": bool(data.terminals[last - 1]), "changed": False})
    for number in range(passes):
        flat = [(e, t, step) for e, episode in enumerate(current) for t, step in enumerate(episode["steps"])]
        arrays = StitchedEpisodes(
            rows=np.concatenate([[*(s["s"] for s in ep["steps"]), ep["steps"][-1]["n"]] for ep in current]),
            actions=np.stack([step["a"] for *_, step in flat]),
            rewards=np.stack([step["r"] for *_, step in flat]),
            synthetic=np.array([step["jump"] for *_, step in flat]),
            terminal=np.array([ep["terminal"] for ep in current]),
            won=np.zeros(len(current), dtype=np.bool_),
            starts=np.concatenate([[0], np.cumsum([len(ep["steps"]) for ep in current])]),
        )
        values, _ = stitching.values(arrays, number)
        renewed = []
        for e, episode in enumerate(current):
            at, walked, terminal = (e, 0), [], False
            while True:
                step = current[at[0]]["steps"][at[1]]
                around = {step["s"], *near(step["s"])}
                options = {other["n"] for *_, other in flat if other["s"] in around}
                options |= {other["n"] for *_, other in flat if other["n"] in set(near(step["n"]))}
                base = np.log(np.mean(np.exp(log_densities(step["s"], step["n"]))))
                options = {n for n in options if values[n] > values[step["n"]]}
                options = {n for n in options if log_densities(step["s"], n).min() > base}
                if options:
                    to = min(options, key=lambda n: (-values[n], n))
                    at = next((e2, t2) for e2, t2, other in flat if other["n"] == to)
                    z = stitching._latents(np.array([e]), np.array([len(walked)]), f"pass{number}")
                    a, r = model.actions_and_rewards(steps, np.array([step["s"]]), np.array([to]), z)
                    share = np.full(data.spec.n_agents, r[0] / data.spec.n_agents, dtype=np.float32)
                    walked.append({"s": step["s"], "n": to, "a": a[0], "r": share, "jump": True})
                else:
                    walked.append(step)
                ended = at[1] + 1 == len(current[at[0]]["steps"])
                if ended:
                    terminal = current[at[0]]["terminal"]
                if ended or len(walked) == data.spec.episode_limit:
                    break
                at = (at[0], at[1] + 1)
            old, new = (sum(float(s["r"].sum()) for s in steps_) for steps_ in (episode["steps"], walked))
            accepted = new > old + 0.1 * abs(old)
            renewed.append({"steps": walked, "terminal": terminal, "changed": True} if accepted else episode)
        current = renewed
    return current


@pytest.mark.parametrize("shape", ["continuous", "discrete", "states-and-deaths", "one-agent"])
def test_pointers_give_what_one_walk_after_another_gives(shape: str) -> None:
    stitching, model, data = stitching_of(shape)
    episodes, changed = stitching.passes()
    expected = one_after_another(stitching, model, data, PASSES)
    assert changed.any()
    assert not changed.all()
    assert changed.tolist() == [ep["changed"] for ep in expected]
    np.testing.assert_array_equal(episodes.first_rows(), [s["s"] for ep in expected for s in ep["steps"]])
    np.testing.assert_array_equal(episodes.second_rows(), [s["n"] for ep in expected for s in ep["steps"]])
    np.testing.assert_array_equal(episodes.synthetic, [s["jump"] for ep in expected for s in ep["steps"]])
    np.testing.assert_array_equal(episodes.terminal, [ep["terminal"] for ep in expected])
    np.testing.assert_allclose(episodes.actions, np.stack([s["a"] for ep in expected for s in ep["steps"]]), atol=1e-5)
    np.testing.assert_allclose(episodes.rewards, np.stack([s["r"] for ep in expected for s in ep["steps"]]), atol=1e-5)


def test_with_radius_0_nothing_jumps() -> None:
    stitching, _, data = stitching_of("continuous", radius=0.0)
    episodes, changed = stitching.passes()
    assert not changed.any()
    assert stitching.report.mean_neighbours == 0
    np.testing.assert_array_equal(episodes.rows, np.arange(len(data.observations)))
    np.testing.assert_array_equal(episodes.actions, data.actions)


def test_with_a_constant_value_nothing_jumps() -> None:
    data, model, _ = fitted("discrete")
    steps = StepTensors.of(data, model.scaling, "cpu")
    near = nearest_rows(model.scaling.rows(data), 1e3, 64)
    graph = TransitionGraph.of(StitchedEpisodes.original(data), len(data.observations))
    flat = decide(graph, near, model, steps, np.full(len(data.observations), 2.0, dtype=np.float32))
    assert flat.better == flat.reached == 0
    assert (flat.target == -1).all()
    rising = decide(graph, near, model, steps, np.arange(len(data.observations), dtype=np.float32))
    assert (rising.target >= 0).any()


def test_blocks_of_transitions_decide_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model, _ = fitted("continuous")
    steps = StepTensors.of(data, model.scaling, "cpu")
    near = nearest_rows(model.scaling.rows(data), 1e3, 64)
    graph = TransitionGraph.of(StitchedEpisodes.original(data), len(data.observations))
    values = np.random.default_rng(0).normal(size=len(data.observations)).astype(np.float32)
    whole = decide(graph, near, model, steps, values)
    monkeypatch.setattr("methods.model_based_stitching.jumps._PAIRS", 5)
    monkeypatch.setattr("methods.model_based_stitching.jumps._CANDIDATES", 7)
    told: list[tuple[int, int]] = []
    parts = decide(graph, near, model, steps, values, lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(whole.target, parts.target)
    assert (whole.better, whole.reached) == (parts.better, parts.reached)
    assert told[-1] == (72, 72)


def toy(paths: list[list[int]], terminal: list[bool]) -> StitchedEpisodes:
    lengths = np.array([len(path) - 1 for path in paths])
    count = int(lengths.sum())
    return StitchedEpisodes(
        rows=np.concatenate(paths),
        actions=np.arange(count)[:, None],
        rewards=np.arange(count, dtype=np.float32)[:, None],
        synthetic=np.zeros(count, dtype=np.bool_),
        terminal=np.array(terminal),
        won=np.array(terminal),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
    )


def test_candidates_follow_neighbours_of_the_row_or_are_neighbours_of_the_next_row() -> None:
    # Steps 0 -> 1 -> 2, 3 -> 4 -> 5, and 3 -> 2, which makes two ways out of row 3.
    graph = TransitionGraph.of(toy([[0, 1, 2], [3, 4, 5], [3, 2]], [False] * 3), 7)
    assert list(zip(graph.first.tolist(), graph.second.tolist(), strict=True)) == [
        (0, 1),
        (1, 2),
        (3, 2),
        (3, 4),
        (4, 5),
    ]
    assert graph.of_step.tolist() == [0, 1, 3, 4, 2]
    assert graph.arrives.tolist() == [-1, 0, 1, -1, 2, 3, -1]  # row 2: by step 1 before step 4
    neighbours = np.full((7, 2), -1, dtype=np.int32)
    neighbours[0] = [3, 6]  # leads to 2 and 4; nothing leaves row 6
    neighbours[1] = [5, 0]  # row 0 leads to 1; nothing leads to row 0
    owner, rows = graph.candidates(np.array([0, 1]), neighbours)
    assert list(zip(owner.tolist(), rows.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 4), (0, 5), (1, 1), (1, 2)]


def test_a_walk_goes_on_behind_the_step_that_leads_to_its_row() -> None:
    episodes = toy([[0, 1, 2, 3], [4, 5, 6], [7, 8]], [False, True, False])
    graph = TransitionGraph.of(episodes, 9)
    target = np.full(len(graph.first), -1)
    target[graph.first == 0] = 5  # from 0 over to the second episode
    target[graph.first == 7] = 1  # from 7 into the first one
    walks = walk(episodes, graph, Jumps(target, 0, 0), limit=3)
    assert walks.rows.tolist() == [[0, 5, 6, -1], [4, 5, 6, -1], [7, 1, 2, 3]]
    assert walks.source.tolist() == [[-1, 4, -1], [3, 4, -1], [-1, 1, 2]]
    assert walks.lengths.tolist() == [2, 2, 3]
    assert walks.terminal.tolist() == walks.won.tolist() == [True, True, False]
    short = walk(episodes, graph, Jumps(target, 0, 0), limit=1)
    assert short.lengths.tolist() == [1, 1, 1]
    assert short.terminal.tolist() == [False, False, False]  # the limit is no end


def test_a_circle_ends_at_the_limit() -> None:
    episodes = toy([[0, 1, 2]], [True])
    graph = TransitionGraph.of(episodes, 3)
    walks = walk(episodes, graph, Jumps(np.array([-1, 1]), 0, 0), limit=5)  # 1 -> 1
    assert walks.rows.tolist() == [[0, 1, 1, 1, 1, 1]]
    assert not walks.terminal.any()


def test_the_margin_is_relative_to_the_size_of_the_old_return() -> None:
    old = np.array([10.0, 10.0, -10.0, -10.0, 0.0, 0.0])
    new = np.array([11.0, 11.01, -9.0, -8.99, 0.0, 0.01])
    assert better_by_margin(new, old, 0.1).tolist() == [False, True, False, True, False, True]


def test_episodes_are_chosen_put_together_and_returned_as_data() -> None:
    data = sample_dataset("states-and-deaths").without_privileged()
    original = StitchedEpisodes.original(data)
    new = replace(original, rewards=original.rewards + 1)
    picked = np.arange(data.n_episodes) % 2 == 0
    mixed = chosen_from(original, new, picked)
    gain = (mixed.returns(data.spec) - data.returns()) / (data.spec.n_agents * data.lengths)
    np.testing.assert_allclose(gain, picked, atol=1e-5)
    back = together([original, original.take(np.array([3, 1]))]).dataset(data)
    back.validate()
    again = data.take([*range(data.n_episodes), 3, 1])
    for name, column in again.columns().items():
        np.testing.assert_array_equal(getattr(back, name), column, err_msg=name)
