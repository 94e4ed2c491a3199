"""CONTRIBUTING.md, followed to the letter on its own toy."""

import re
from pathlib import Path

import pytest
import yaml

import methods.augmenters
from benchmark.cli.root import main
from methods.augmenters import AUGMENTERS
from tasks.common.errors import ExitCode

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture
def jitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 1 and 2: the file, in a folder that counts as methods/augmenters, and the line of the table."""
    code, line = blocks("python")
    (tmp_path / "jitter.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(methods.augmenters, "__path__", [*methods.augmenters.__path__, str(tmp_path)])
    monkeypatch.setattr(AUGMENTERS, "_entries", dict(AUGMENTERS._entries))
    exec(line, {"AUGMENTERS": AUGMENTERS})


def test_the_augmenter_of_the_text_passes_its_own_check(jitter: None, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.split()[1:] for block in blocks("bash") for line in block.splitlines() if "jitter" in line]
    assert [words[0] for words in commands] == ["plugin", "show", "run"]
    for words in commands[:2]:
        assert main(words) == ExitCode.OK, capsys.readouterr()
    assert "augmenter jitter: 60 checks passed" in capsys.readouterr().out


def test_the_matrix_of_the_text_is_a_valid_one(
    jitter: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = blocks("yaml")
    assert "jitter[width=0.1]" in yaml.safe_load(text)["augmenters"]
    (tmp_path / "jitter.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("AUGMARL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUGMARL_RESULTS", str(tmp_path / "results"))
    assert main(["plan", "--matrix", str(tmp_path / "jitter.yaml")]) == ExitCode.OK
    assert "8 cells" in capsys.readouterr().out


def test_the_commands_for_a_package_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its installation and check are tested in test_plugins.py on packages from the same command."""
    commands = [line.split() for block in blocks("bash") for line in block.splitlines() if "my-idea" in line]
    assert [words[:2] for words in commands] == [["bench", "plugin"], ["pip", "install"], ["bench", "plugin"]]
    monkeypatch.chdir(tmp_path)
    assert main(commands[0][1:]) == ExitCode.OK
    assert (tmp_path / commands[1][-1] / "pyproject.toml").is_file()
