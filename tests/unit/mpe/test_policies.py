"""Shipped policies: they load with numpy, keep their cards' promises, and form a ladder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.behaviour import train as training
from benchmark.behaviour.evaluation import EVALUATION_SEED, Played, RandomPolicy, evaluate
from benchmark.behaviour.recipes import recipe_of
from benchmark.behaviour.references import shipped_tasks
from benchmark.behaviour.train import Progress, Rung, TrainingRun, train_behaviour
from tasks.common.errors import DataError, StorageError, UsageError
from tasks.common.files import sha256_of
from tasks.common.selector import Selector
from tasks.mpe.task import CHECKPOINTS, ENGINE_VERSION, REFERENCES, MPETask, make_task
from tasks.policies import MLPPolicy, SoftmaxPolicy, load_card, load_history, load_weights, save_policy, stack_history

SHIPPED = [task.spec.id for task in shipped_tasks()]
CONTINUOUS = [text for text in SHIPPED if "discrete" not in text]
REQUIRED = {"mpe/spread", "mpe/spread-4", "mpe/spread-5", "mpe/tag", "mpe/world"}
REQUIRED |= {f"mpe/{name}[actions=discrete]" for name in ("spread", "tag", "world")}


def task_of(text: str) -> MPETask:
    return make_task(Selector.parse(text))


def test_every_promised_task_has_its_policies() -> None:
    assert set(SHIPPED) >= REQUIRED


@pytest.mark.parametrize("text", SHIPPED)
def test_shipped_policies_keep_their_cards_and_form_a_ladder(text: str) -> None:
    task, episodes, returns = task_of(text), 200, {}
    for level in task.behaviour_levels:
        path = task.checkpoint(level)
        card = load_card(path)
        assert card["sha256"] == sha256_of(path) == task.behaviour_digest(level)
        assert (card["task"], card["variant"], card["engine_version"]) == (text, task.spec.variant, ENGINE_VERSION)
        assert card["evaluation"]["episodes"] == 1000
        assert path.stat().st_size < 200_000
        measured = evaluate(task, task.behaviour_policy(level), episodes, seed=77)
        promised = card["evaluation"]
        error = promised["std"] * np.sqrt(1 / episodes + 1 / promised["episodes"])
        assert measured.mean() == pytest.approx(promised["mean"], abs=3 * error)
        returns[level] = measured
    random = evaluate(task, RandomPolicy(task.spec, 1), episodes, seed=77)
    for lower, upper in ((random, returns["medium"]), (returns["medium"], returns["expert"])):
        difference = upper - lower  # the same starting states, so the noise of the start cancels in part
        assert difference.mean() > 5 * difference.std() / np.sqrt(episodes)
    s = (returns["medium"].mean() - random.mean()) / (returns["expert"].mean() - random.mean())
    assert 0.35 < s < 0.65


@pytest.mark.parametrize("text", CONTINUOUS)
def test_training_history_explores_first_and_is_small(text: str) -> None:
    task = task_of(text)
    phases = task.training_history()
    assert phases[0].policy is None
    assert phases[0].episodes * task.spec.episode_limit >= 20_000
    assert len(phases) > 5
    assert task.checkpoint("history").stat().st_size < 1_500_000
    observations = task.make_env(4, 0).reset(range(4)).observations
    for phase in phases[1:]:
        assert phase.policy is not None
        assert phase.episodes > 0
        assert phase.noise_std == 0.1
        assert phase.policy.act(observations, None).shape == (4, task.spec.n_agents, 2)
    card = load_card(task.checkpoint("history"))
    assert card["env_steps"] == sum(phase.episodes for phase in phases) * task.spec.episode_limit


@pytest.mark.parametrize("text", SHIPPED)
def test_score_references_are_measured_on_this_engine(text: str) -> None:
    task = task_of(text)
    references = task.spec.score_references
    assert references is not None
    assert references.episodes == 1000
    assert references.expert_return == load_card(task.checkpoint("expert"))["evaluation"]["mean"]
    assert references.seed == EVALUATION_SEED
    row = json.loads(REFERENCES.read_text())["references"][text]
    assert task.behaviour_digest("expert")[:12] in row["provenance"]
    assert references.normalise(np.array([references.random_return, references.expert_return])).tolist() == [0, 100]


def test_no_shipped_file_is_a_stranger() -> None:
    known = {"expert", "medium", "history", "prey"}
    for path in CHECKPOINTS.rglob("*"):
        if path.is_file():
            assert path.stem in known
            assert path.suffix in (".safetensors", ".json")


def test_network_equals_a_loop_over_agents() -> None:
    generator = np.random.default_rng(0)
    shapes = {"w0": (3, 4, 5), "b0": (3, 5), "w1": (3, 5, 5), "b1": (3, 5), "w2": (3, 5, 2), "b2": (3, 2)}
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    seen = generator.normal(size=(6, 3, 4)).astype(np.float32)
    out = MLPPolicy(weights, "tanh").act(seen, None)
    for agent in range(3):
        h = np.maximum(seen[:, agent] @ weights["w0"][agent] + weights["b0"][agent], 0)
        h = np.maximum(h @ weights["w1"][agent] + weights["b1"][agent], 0)
        raw = h @ weights["w2"][agent] + weights["b2"][agent]
        np.testing.assert_allclose(out[:, agent], np.tanh(raw), rtol=1e-5, atol=1e-6)
        available = np.zeros((6, 3, 2), dtype=bool)
        available[..., 1] = True
        assert (MLPPolicy(weights, "argmax").act(seen, available) == 1).all()
        assert (MLPPolicy(weights, "argmax").act(seen, None)[:, agent] == raw.argmax(axis=-1)).all()


def test_actions_are_drawn_from_the_softmax_over_available_actions() -> None:
    """One agent whose logits are log 1, log 2, log 5, log 2 whatever it sees; the third action is not available."""
    logits = np.log(np.array([[1.0, 2.0, 5.0, 2.0]], dtype=np.float32))
    zero = np.zeros((1, 1, 4), dtype=np.float32)
    weights = {"w0": zero[..., :1], "b0": zero[0, :, :1], "w1": zero[..., :1], "b1": zero[0, :, :1], "w2": zero}
    policy = SoftmaxPolicy({**weights, "b2": logits})
    uniform = np.array([0.0, 0.1999, 0.2001, 0.5999, 0.6001, np.nextafter(1.0, 0.0)])[:, None]
    seen, available = np.zeros((6, 1, 1), dtype=np.float32), np.array([True, True, False, True])
    drawn = policy.sample(seen, np.broadcast_to(available, (6, 1, 4)), uniform)
    assert drawn[:, 0].tolist() == [0, 0, 1, 1, 3, 3]
    assert policy.sample(seen, None, uniform)[:, 0].tolist() == [0, 1, 1, 2, 2, 3]
    only = np.broadcast_to(np.array([False, False, True, False]), (6, 1, 4))
    assert (policy.sample(seen, only, uniform) == 2).all()


def test_a_history_to_the_expert_knows_where_medium_was_reached(tmp_path: Path) -> None:
    snapshots = [{"w0": np.full((1, 1, 1), n, np.float16), "b0": np.zeros((1, 1), np.float16)} for n in range(3)]
    path = tmp_path / "history.safetensors"
    save_policy(path, stack_history(snapshots, [0, 10, 20, 30], medium=25), {})
    whole, part = load_history(path, "argmax", "expert"), load_history(path, "argmax")
    assert [phase.episodes for phase in whole] == [10, 20, 30]  # nothing was uniform
    assert [phase.episodes for phase in part] == [10, 15]
    assert all(isinstance(phase.policy, SoftmaxPolicy) and phase.epsilon == 0.0 for phase in whole)  # no ε: drawn
    save_policy(path, stack_history(snapshots, [5, 10, 20, 30], epsilon=[0.5, 0.25, 0.125], medium=3), {})
    explored = load_history(path, "argmax", "expert")
    assert [(phase.episodes, phase.epsilon) for phase in explored] == [(5, 0.0), (10, 0.5), (20, 0.25), (30, 0.125)]
    assert not any(isinstance(phase.policy, SoftmaxPolicy) for phase in explored)
    assert [phase.episodes for phase in load_history(path, "argmax")] == [3]
    save_policy(path, stack_history(snapshots, [5, 10, 20, 30]), {})
    assert [phase.noise_std for phase in load_history(path, "tanh")] == [0.0, 0.1, 0.1, 0.1]  # the learner's own
    save_policy(path, stack_history(snapshots, [0, 10, 20, 30], noise=[0.5, 0.4, 0.25]), {})
    assert [phase.noise_std for phase in load_history(path, "tanh")] == pytest.approx([0.5, 0.4, 0.25])
    save_policy(path, stack_history(snapshots, [5, 10, 20, 30]), {})
    with pytest.raises(UsageError, match="ends at the medium level, so `replay` is not possible"):
        load_history(path, "tanh", "expert")


def test_files_round_trip_and_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "expert.safetensors"
    save_policy(path, {"w0": np.ones((1, 2, 3), dtype=np.float32)}, {"task": "mpe/spread"})
    np.testing.assert_array_equal(load_weights(path)["w0"], np.ones((1, 2, 3)))
    assert load_card(path) == {"task": "mpe/spread", "sha256": sha256_of(path)}
    path.write_bytes(b"not a policy")
    with pytest.raises(StorageError, match="Could not read the policy"):
        load_weights(path)
    path.with_suffix(".json").write_text("[1]")
    with pytest.raises(DataError, match="not a JSON object"):
        load_card(path)
    with pytest.raises(DataError, match="expected one more"):
        stack_history([{"w0": np.ones(1)}], [1])


@pytest.mark.parametrize("text", ["mpe/spread-4", "mpe/tag[prey=scripted]", "mpe/tag[actions=discrete,prey=scripted]"])
def test_a_short_training_writes_a_whole_ladder(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CARD_EPISODES": 20, "LADDER_EPISODES": 20, "CANDIDATES": 2}.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "recipe_of", lambda *task: replace(recipe_of(*task), evaluate_every=4))
    told: list[Progress] = []
    means = train_behaviour(text, 1, steps=22_400, out=tmp_path, progress=told.append)
    assert list(means) == ["random", "medium", "expert"]
    assert [step.env_steps for step in told] == [0, 6400, 12800, 19200, 22400]
    task = task_of(text)
    for level in task.behaviour_levels:
        assert (
            load_card(task.checkpoint(level, tmp_path))["command"]
            == f"bench policy train '{text}' --seed 1 --steps 22400"
        )
    assert task.checkpoint("history", tmp_path).exists() == (task.rule == "tanh")


def test_medium_is_the_rung_nearest_to_half_way_before_the_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returns 0 (random), then by round; the expert comes from every tenth round and the last one."""
    ladder = {0: 5.0, 2: 40.0, 4: 57.0, 8: 120.0, 10: 100.0, 12: 51.0}
    rungs = [Rung(n, 1600 * n, mean, {"w0": np.full((1, 1, 1), mean, np.float32)}) for n, mean in ladder.items()]
    actors = [{"w0": np.full((1, 1, 1), n, np.float16)} for n in range(12)]
    run = TrainingRun(ladder=rungs, actors=actors, uniform_rounds=1)

    def played(task: MPETask, policy: MLPPolicy | RandomPolicy, episodes: int, seed: int) -> Played:
        return Played(np.full(episodes, policy.weights["w0"].item() if isinstance(policy, MLPPolicy) else 0.0), None)

    monkeypatch.setattr(training, "_train", lambda *_: run)
    monkeypatch.setattr(training, "play", played)
    # The best rung of all, 120, is no candidate; 51 is nearest to 50 and came after the expert.
    assert train_behaviour("mpe/spread", 0, steps=1, out=tmp_path) == {"random": 0.0, "medium": 57.0, "expert": 100.0}
    task = task_of("mpe/spread")
    assert load_weights(task.checkpoint("medium", tmp_path))["w0"].item() == 57.0
    history = load_weights(task.checkpoint("history", tmp_path))  # until 50 was reached first, in round 4
    assert history["w0"].ravel().tolist() == [1.0, 2.0, 3.0]
    assert history["episodes"].tolist() == [64] * 4  # the uniform round first


def test_training_needs_one_length() -> None:
    with pytest.raises(UsageError, match="either steps or seconds"):
        train_behaviour("mpe/spread", 0, steps=1, seconds=1.0)
