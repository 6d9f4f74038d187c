"""The project's own files agree with one another."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bayes_vs_sgd as bvs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def blocks(language: str) -> list[str]:
    """Fenced blocks of the README in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_readme_opens_with_the_two_commands_in_one_line_each():
    commands = blocks("sh")[:2]
    assert all(len(command.splitlines()) == 1 and ".venv" in command for command in commands)
    assert "bayes-vs-sgd compare models/deep_linear.py" in commands[0]
    assert "pytest" in commands[1]


def test_ci_runs_the_test_command_of_the_readme():
    command = blocks("sh")[1].strip()
    ci_lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert ci_lines.count(command) == 1


def test_readme_is_short():
    assert len(README.splitlines()) < 150


@pytest.mark.smoke
def test_example_of_the_readme_runs():
    example = blocks("python")[0]
    assert len(example.splitlines()) <= 10
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_model_file_of_the_readme_loads(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(blocks("python")[1])
    model = bvs.load_model(path, num_examples=30)
    assert (model.num_examples, model.num_parameters) == (30, 2)


@pytest.mark.parametrize("folder", ["models", "dynamics"])
def test_readme_lists_all_there_is(folder):
    if folder == "models":
        wanted = {f"models/{path.name}" for path in (ROOT / "models").glob("*.py")}
        found = set(re.findall(r"^\| `(models/\w+\.py)`", README, flags=re.MULTILINE))
    else:
        wanted = {name for name in importlib.import_module("bayes_vs_sgd.dynamics").__all__ if name in bvs.__all__} - {
            "Dynamics"
        }
        table = README.split("## Dynamics")[1].split("\n## ")[0]
        found = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)", table, flags=re.MULTILINE))))
    assert found == wanted


def test_version_is_said_once_everywhere():
    version = PROJECT["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, flags=re.MULTILINE)[1] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_wheel_holds_the_library_alone():
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["bayes_vs_sgd"]
    for folder in ("models", "analyses"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_a_file_is_one_idea():
    lengths = {str(path): len(path.read_text().splitlines()) for path in (ROOT / "bayes_vs_sgd").rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
