from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmark import sources


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "toy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text("from toy_package.inner import x\nfrom . import late\nimport numpy\n")
    (folder / "inner.py").write_text("x = 1\ndef f():\n    from tasks.common.seeding import derive_seed\n")
    (folder / "late.py").write_text("")
    (folder / "unrelated.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def digest() -> str:
    for cached in (sources.source_digest, sources._file_of):
        cached.cache_clear()
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]
    return sources.source_digest("toy_package.method")


def test_the_closure_holds_own_modules_and_ours_and_no_others(package: Path) -> None:
    assert set(sources.import_closure("toy_package.method")) == {
        "toy_package.method",
        "toy_package.inner",
        "toy_package.late",
        "toy_package",
        "tasks.common.seeding",
    } | ({"tasks.common"} & set(sources.import_closure("toy_package.method")))


def test_only_what_is_imported_changes_the_digest(package: Path) -> None:
    before = digest()
    (package / "unrelated.py").write_text("y = 2\n")
    assert digest() == before
    (package / "inner.py").write_text("x = 2\n")
    assert digest() != before


def test_our_methods_have_digests_that_cover_their_helpers() -> None:
    closure = sources.import_closure("methods.augmenters.rad")
    assert {"methods.augmenters.rad", "methods.base", "tasks.datasets.offline"} <= set(closure)
