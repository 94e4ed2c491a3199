"""Tables: lazy, with the nearest names, and open to other packages without trusting them."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.common.errors import UnknownNameError, UsageError
from tasks.common.registry import Registry


def only_classes(name: str, loaded: object) -> None:
    if not isinstance(loaded, type):
        raise UsageError(f"{name} is no class")


def make_registry() -> Registry[type]:
    registry: Registry[type] = Registry("colour", check=only_classes, entry_points="augmarl.colours")
    for name in ("madits", "madiff", "mastars-lov", "ins"):
        registry.add(name, "decimal:Decimal", "a colour")
    return registry


def test_unknown_name_lists_the_three_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        make_registry().entry("madit")
    assert caught.value.nearest == ("madits", "madiff", "mastars-lov")
    assert "'madits' or 'madiff' or 'mastars-lov'" in str(caught.value)


def test_listing_imports_nothing() -> None:
    registry: Registry[type] = Registry("colour", check=only_classes)
    registry.add("blue", "a_module_that_does_not_exist:Blue", "a colour")
    assert registry.names() == ("blue",)
    assert "a_module_that_does_not_exist" not in sys.modules


def test_a_preset_is_its_base_with_more_parameters() -> None:
    registry = make_registry()
    registry.add("calm", "decimal:Decimal", "a colour", hue=1, depth=2)
    registry.preset("calm", "paper", "as a paper has it", depth=3)
    found = registry.entry("calm@paper")
    assert (found.target, found.params, found.summary) == (
        "decimal:Decimal",
        {"hue": 1, "depth": 3},
        "as a paper has it",
    )
    assert registry.load("calm@paper") is registry.load("calm")
    assert registry.presets() == ("calm@paper",)
    assert "calm@paper" not in registry.names()
    with pytest.raises(UnknownNameError, match="calm@paper"):
        registry.entry("calm@papre")
    with pytest.raises(ValueError, match="twice"):
        registry.preset("calm", "paper", "again")


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        make_registry().add("ins", "decimal:Decimal", "again")


def plugin(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = importlib.metadata.EntryPoint(name, value, "augmarl.colours")
    object.__setattr__(point, "dist", SimpleNamespace(name="somebody-elses"))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [point])


def test_a_plugin_joins_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, "theirs", "fractions:Fraction")
    registry = make_registry()
    assert registry.names()[-1] == "theirs"
    assert registry.entry("theirs").package == "somebody-elses"
    assert registry.load("theirs").__name__ == "Fraction"


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, "theirs", "no_such_module:Thing")
    with pytest.raises(UsageError, match="somebody-elses.*ModuleNotFoundError"):
        make_registry().load("theirs")


def test_a_plugin_cannot_take_over_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, "ins", "fractions:Fraction")
    with pytest.raises(UsageError, match="which AugMARL already has"):
        make_registry().names()


def test_a_plugin_that_exits_while_it_is_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    plugin(monkeypatch, "theirs", "leaves_at_once:Thing")
    with pytest.raises(UsageError, match="somebody-elses.*SystemExit"):
        make_registry().load("theirs")


@pytest.mark.parametrize(("kind", "told"), [("matrix", "`bench list matrices`"), ("executor", "")])
def test_unknown_names_lead_to_the_list_there_is(kind: str, told: str) -> None:
    text = str(UnknownNameError(kind, "quik", ["quick"]))
    assert text == f"Unknown {kind} 'quik'. Did you mean 'quick'?" + (f" {told} shows all names." if told else "")


def test_what_does_not_fit_the_contract_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, "theirs", "math:pi")
    with pytest.raises(UsageError, match="is no class"):
        make_registry().load("theirs")
