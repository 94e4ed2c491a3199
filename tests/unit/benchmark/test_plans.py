from __future__ import annotations

import dataclasses
import re

import pytest

from benchmark import outcomes
from benchmark.plans import GroupPlan, plan_group
from tasks.common.errors import UsageError
from tests.unit.benchmark.conftest import smoke_group  # type: ignore[import-not-found,unused-ignore]


def plan(**axes: str) -> GroupPlan:
    return plan_group(smoke_group(**axes))


def digests(made: GroupPlan, seed: int = 0) -> dict[str, str]:
    return {key.stage: key.digest for key in made.keys(seed)}


def changed(first: dict[str, str], second: dict[str, str]) -> set[str]:
    return {stage for stage in first.keys() | second.keys() if first.get(stage) != second.get(stage)}


BASE = digests(plan())


def test_learners_share_the_augmented_data_and_seeds_do_not() -> None:
    assert changed(BASE, digests(plan(learner="bc50"))) == {"policy", "evaluation"}
    assert changed(BASE, digests(plan(), seed=1)) == {"augmented", "policy", "evaluation"}


def test_each_part_changes_its_stage_and_those_after_it() -> None:
    assert changed(BASE, digests(plan(augmenter="rad-s[low=0.5]"))) == {"augmented", "policy", "evaluation"}
    assert changed(BASE, digests(plan(protocol="smoke[updates=13]"))) == {"policy", "evaluation"}
    assert changed(BASE, digests(plan(protocol="smoke[mix=replace]"))) == {"policy", "evaluation"}
    assert changed(BASE, digests(plan(protocol="smoke[evaluation_episodes=9]"))) == {"evaluation"}
    assert changed(BASE, digests(plan(protocol="smoke[environment_seed=9]"))) == {"evaluation"}
    assert changed(BASE, digests(plan(protocol="smoke[dataset_seed=9]"))) == set(BASE)
    assert changed(BASE, digests(plan(task="mpe/spread[variant=mpe2]"))) == set(BASE)


def test_what_cannot_change_a_number_changes_no_key() -> None:
    assert digests(plan(protocol="smoke[timeout_seconds=5]")) == BASE
    assert digests(plan(augmenter="rad-s[low=0.8]")) == BASE  # the default, written out


def test_a_new_version_is_another_artefact(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan()
    monkeypatch.setattr(made.augmenter.method_class, "version", made.augmenter.method_class.version + 1)
    assert changed(BASE, digests(plan())) == {"augmented", "policy", "evaluation"}


def test_the_control_that_adds_nothing_has_no_augmented_data_and_no_mix() -> None:
    original = plan(augmenter="original")
    assert set(digests(original)) == {"dataset", "policy", "evaluation"}
    assert digests(plan(augmenter="original", protocol="smoke[mix=replace]")) == digests(original)
    assert original.artefacts(0).augmented is None


def test_a_regime_that_a_task_cannot_have_is_undefined_there_and_nowhere_else() -> None:
    assert plan(dataset="poor").unsupported() == "poor: mpe/spread has no 'poor' policy. It has: medium, expert."
    assert plan(task="smac/3m", dataset="poor").unsupported() is None


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"learner": "bc50"}, "no episode has a return"),
        ({"learner": "bc[memory=gru]"}, "a recurrent policy cannot be trained on"),
        ({"learner": "bc50", "augmenter": "noise[emit=transitions]"}, "no episode has a return"),
        ({"learner": "icq", "task": "smac/3m"}, r"Use icq\[memory=none\]"),
        ({"learner": "omar", "task": "smac/3m"}, r"Use omar\[memory=none\]"),
    ],
)
def test_transitions_in_place_of_the_data_are_too_little_for_some(axes: dict[str, str], reason: str) -> None:
    given = {"augmenter": "ins", "protocol": "smoke[mix=replace]", **axes}
    assert re.search(reason, plan(**given).unsupported() or "")
    for enough in ({"protocol": "smoke"}, {"augmenter": "duplicate"}, {"augmenter": "original"}):
        assert plan(**{**given, **enough}).unsupported() is None
    for learner in ("bc[memory=none]", "icq[memory=none]", "omar[memory=none]"):
        assert plan(**{**given, "learner": learner}).unsupported() is None


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        ("cql[critic_hidden=128,memory=none]", "mpe/spread: critic_hidden=128 has no meaning for continuous actions"),
        ("icq[memory=gru]", "mpe/spread: icq: memory=gru is for discrete actions"),
    ],
)
def test_a_parameter_that_a_task_does_not_have_is_undefined_there(learner: str, reason: str) -> None:
    assert (plan(learner=learner).unsupported() or "").startswith(f"{learner}: {reason}")
    assert plan(task="mpe/spread[actions=discrete]", learner=learner).unsupported() is None


def test_seeds_are_paired_across_augmenters_and_apart_from_each_other() -> None:
    rad, noise = plan(), plan(augmenter="noise")
    assert rad.learner_seed(0) == noise.learner_seed(0)
    assert rad.learner_seed(0) != rad.learner_seed(1)
    assert rad.augmentation_seed(0) != rad.learner_seed(0)
    assert len({rad.extra_seed(0), rad.extra_seed(1), rad.protocol.dataset_seed}) == 3
    assert plan(learner="bc50").environment_seed == rad.environment_seed == noise.environment_seed
    assert rad.environment_seed != plan(task="mpe/tag").environment_seed


def test_variants_that_differ_in_generation_alone_share_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    method = plan().augmenter.method_class
    monkeypatch.setattr(method, "trains", True)
    monkeypatch.setattr(method, "generation_fields", frozenset({"low"}))
    first, second = plan(), plan(augmenter="rad-s[low=0.5]")
    assert first.fit_key(0) is not None
    assert first.fit_key(0) == second.fit_key(0)
    assert first.augmented_key(0) != second.augmented_key(0)
    assert plan(augmenter="rad-s[high=1.5]").fit_key(0) != first.fit_key(0)


def test_the_compute_of_diffusion_models_is_in_the_keys_of_methods_that_train_and_in_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert digests(plan(protocol="smoke[diffusion_updates=7]")) == BASE
    monkeypatch.setattr(plan().augmenter.method_class, "trains", True)
    trained = digests(plan())
    all_later = {"augmented", "policy", "evaluation"}
    for setting in ("width=16", "updates=7", "batch_size=7", "learning_rate=7", "ema_every=7", "head_updates=7"):
        assert changed(trained, digests(plan(protocol=f"smoke[diffusion_{setting}]"))) == {"fit", *all_later}
    for setting in ("sampling_steps=7", "sampler=ddpm"):
        assert changed(trained, digests(plan(protocol=f"smoke[diffusion_{setting}]"))) == all_later
    key = plan(protocol="paper[diffusion_width=16]").fit_key(0)
    assert key is not None
    assert key.parts["diffusion"] == {"width": 16}  # the method's own numbers are in its config


def test_golden_keys() -> None:
    # A change here throws away what everybody has cached. If numbers moved, raise the method's or regime's
    # `version` on purpose; if a part of a key changed its meaning, raise KEY_VERSION. Then update these.
    assert {stage: digest[:16] for stage, digest in BASE.items()} == GOLDEN


GOLDEN = {
    "dataset": "d9542060b06f7f0a",
    "augmented": "08c3d9cbadcddf46",
    "policy": "e910a833865f5090",
    "evaluation": "e71319c6c1b30337",
}


@pytest.mark.parametrize(
    ("axis", "name", "message"),
    [
        ("augmenter", "rad-s[lo=0.5]", "lo"),
        ("augmenter", "rad-s[low=high]", "low"),
        ("learner", "bc[memory=lstm]", "memory"),
        ("dataset", "exp-m[t_imb=-1]", "t_imb"),
        ("task", "mpe/spread[variant=gym]", "variant"),
    ],
)
def test_wrong_parameters_are_usage_errors(axis: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**{axis: name})


def test_what_the_protocol_fixes_for_all_is_no_parameter_of_one() -> None:
    for name in ("madits[width=64]", "codi[updates=5]", "mastars-lov[sampler=ddim]"):
        with pytest.raises(UsageError, match=r"smoke fixes \w+ for every .* smoke\[diffusion_\w+="):
            plan(augmenter=name)
    plan(augmenter="madits[guidance=2.0]")
    plan(protocol="paper", augmenter="madits[width=64]")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("horizon=10", "horizon divisible by 4"),
        ("normaliser=standard", r"keeps to \[-1, 1\]"),
        ("gamma=2", "gamma=2"),
        ("circular_shift=3", "circular_shift=3"),
        ("sampler=foo", "sampler 'foo'"),
        ("sampling_steps=500", "500"),
        ("width=12", "divisible by 8"),
        ("target=nan", "finite"),
        ("updates=-1", "updates=-1"),
    ],
)
def test_models_that_cannot_be_built_are_refused_before_anything_runs(params: str, message: str) -> None:
    for augmenter in ("madits", "madiff-segment")[: 1 if params.startswith("circular") else 2]:
        with pytest.raises(UsageError, match=message):
            plan(protocol="paper", augmenter=f"{augmenter}[{params}]").augmenter.config()


@pytest.mark.parametrize(
    ("task", "told"),
    [("mpe/spread", [{"default": 2_000}, {"default": 320}]), ("mamujoco/4ant", [{"mamujoco": 50}, {"mamujoco": 10}])],
)
def test_records_name_the_episodes_of_their_own_family(task: str, told: list[dict[str, int]]) -> None:
    settings = outcomes._settings(plan(task=task, protocol="quick"))
    assert [settings["dataset_episodes"], settings["evaluation_episodes"]] == told


def test_records_describe_configs_in_full() -> None:
    made = plan(augmenter="rad-s[low=0.5]")
    method = made.augmenter.as_recorded(made.spec)
    assert (method.name, method.config["low"], method.config["high"]) == ("rad-s[low=0.5]", 0.5, 1.2)
    assert set(method.config) == {field.name for field in dataclasses.fields(plan().augmenter.method_class.Config)}


def test_another_prey_is_another_dataset_and_another_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan(task="mpe/tag")
    assert set(before.task.environment_files()) == {"prey"}
    keys = digests(before)
    monkeypatch.setattr(type(before.task), "environment_files", lambda task: {"prey": "0" * 64})
    assert changed(keys, digests(plan(task="mpe/tag"))) == set(keys)
