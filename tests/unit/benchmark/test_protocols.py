from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest

from benchmark.protocols import PROTOCOLS, Mix, make_protocol, with_mix
from methods.run import COMPUTES, ComputeBudget, DiffusionBudget, EpisodeBudget, TransitionBudget
from tasks.common.errors import UnknownNameError, UsageError


@pytest.mark.parametrize(
    ("text", "mix"), [("union", Mix()), ("replace", Mix("replace")), ("upsample-5", Mix("upsample", 5))]
)
def test_mixes_are_read_and_written(text: str, mix: Mix) -> None:
    assert Mix.parse(text) == mix
    assert str(mix) == text


@pytest.mark.parametrize("text", ["", "unionn", "upsample", "upsample-1", "upsample-x", "union-2"])
def test_other_mixes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="upsample-5"):
        Mix.parse(text)


def test_a_variation_is_part_of_the_name_and_not_publishable() -> None:
    varied = make_protocol("quick[updates=10, batch_size=16]")
    assert (varied.name, varied.updates, varied.batch_size) == ("quick[batch_size=16,updates=10]", 10, 16)
    assert not varied.publishable
    assert make_protocol("quick") is PROTOCOLS["quick"]


def test_a_table_may_be_sized_by_updates_and_amount_and_is_published_under_that_name() -> None:
    varied = make_protocol("quick[updates=10, amount_ratio=0.5]")
    assert (varied.name, varied.updates, varied.amount_ratio) == ("quick[amount_ratio=0.5,updates=10]", 10, 0.5)
    assert varied.publishable
    assert not make_protocol("smoke[updates=10]").publishable


def test_every_method_may_add_its_own_amount() -> None:
    varied = make_protocol("quick[amount_ratio=own]")
    assert (varied.name, varied.amount_ratio, varied.publishable) == ("quick[amount_ratio=own]", None, True)
    with pytest.raises(UsageError, match="updates='own' is not a number"):
        make_protocol("quick[updates=own]")


def test_another_mix_stays_publishable_under_its_own_name() -> None:
    replaced = with_mix(make_protocol("quick"), Mix("replace"))
    assert (replaced.name, replaced.publishable) == ("quick[mix=replace]", True)
    assert make_protocol(replaced.name) == replaced
    assert with_mix(make_protocol("quick"), Mix()) is PROTOCOLS["quick"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("quicck", UnknownNameError, "'quick'"),
        ("quick[update=1]", UnknownNameError, "'updates'"),
        ("quick[updates=many]", UsageError, "not a number"),
        ("quick[updates=1.5]", UsageError, "not a whole number"),
        ("quick[updates=-1]", UsageError, "not a number from 1"),
        ("quick[updates=0]", UsageError, "not a number from 1"),
        ("quick[batch_size=0]", UsageError, "not a number from 1"),
        ("quick[evaluation_episodes=0]", UsageError, "not a number from 1"),
        ("quick[updates=99999999999999999999]", UsageError, "to 1,000,000,000"),
        ("quick[amount_ratio=nan]", UsageError, "amount_ratio=nan is not a number from 0"),
        ("quick[amount_ratio=inf]", UsageError, "amount_ratio=inf is not a number from 0"),
        ("quick[timeout_seconds=0]", UsageError, "not a number from 1"),
        ("quick[diffusion_updates=0]", UsageError, "not a number from 1"),
        ("quick[diffusion_updates=1.5]", UsageError, "not a whole number"),
        ("quick[diffusion_sampler=ddmp]", UnknownNameError, "'ddpm'"),
        ("quick[diffusion_sampler=3]", UnknownNameError, "sampler"),
        ("quick[diffusion_width=12]", UsageError, "multiple of 8"),
        ("quick[diffusion_learning_rate=0]", UsageError, "not a number from 1e-09"),
        ("quick[diffusion_first_skip=1]", UnknownNameError, "first_skip"),
        ("quick[diffusion_widht=3]", UnknownNameError, "'diffusion_width'"),
        ("quick[diffusion=3]", UnknownNameError, "setting"),
        ("quick[publishable=true]", UnknownNameError, "setting"),
    ],
)
def test_wrong_protocols_say_what_was_expected(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_protocol(text)


def test_the_compute_of_diffusion_models_is_varied_field_by_field() -> None:
    quick = make_protocol("quick")
    varied = make_protocol("quick[diffusion_updates=7, diffusion_sampler=dpmpp_2m, diffusion_learning_rate=0.5]")
    assert varied.diffusion == replace(quick.diffusion, updates=7, sampler="dpmpp_2m", learning_rate=0.5)
    assert varied.name == "quick[diffusion_learning_rate=0.5,diffusion_sampler=dpmpp_2m,diffusion_updates=7]"
    assert varied.updates == quick.updates
    assert not varied.publishable
    assert with_mix(varied, Mix("replace")).diffusion == varied.diffusion


@pytest.mark.parametrize(
    ("compute", "kind"), [("diffusion", DiffusionBudget), ("episode", EpisodeBudget), ("transition", TransitionBudget)]
)
def test_quick_and_smoke_leave_a_model_nothing_to_choose_and_paper_everything(
    compute: str, kind: type[ComputeBudget]
) -> None:
    for name in ("quick", "smoke"):
        assert None not in asdict(PROTOCOLS[name].compute(compute)).values()
    assert PROTOCOLS["paper"].compute(compute) == kind()
    for field in fields(kind):  # none is forgotten
        sampler = "edm_heun" if compute == "transition" else "ddim"
        value = {"width": 8, "sampler": sampler, "prediction": "velocity", "first_skip": True}.get(field.name, 3)
        varied = make_protocol(f"paper[{compute}_{field.name}={str(value).lower()}]")
        assert varied.compute(compute).given() == {field.name: value}
        assert not any(varied.compute(other).given() for other in COMPUTES if other != compute)


def test_episodes_depend_on_the_family() -> None:
    paper = make_protocol("paper")
    assert paper.episodes_of_dataset("mpe") == 40_000
    assert paper.episodes_of_dataset("unheard-of") == 20_000
    assert make_protocol("paper[dataset_episodes=3]").episodes_of_dataset("mpe") == 3


def test_points_of_a_curve_have_no_more_episodes_than_its_end() -> None:
    quick = make_protocol("quick")
    assert [quick.episodes_of_curve(family) for family in ("mpe", "mamujoco")] == [32, 10]
    assert [quick.episodes_of_evaluation(family) for family in ("mpe", "mamujoco")] == [320, 10]


def test_only_smoke_is_not_publishable_and_settings_are_plain_json() -> None:
    assert [p.name for p in PROTOCOLS.values() if not p.publishable] == ["smoke"]
    for protocol in PROTOCOLS.values():
        assert json.loads(json.dumps(protocol.settings())) == protocol.settings()
