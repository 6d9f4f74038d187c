"""Compiled programs are kept where the user wants them, or nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bayes_vs_sgd.cache import VARIABLE, cache_folder


@pytest.mark.exact
def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "off")
    assert cache_folder() is None
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bayes-vs-sgd" / "jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bayes-vs-sgd" / "jax"


PROGRAM = """
import jax
from bayes_vs_sgd.cache import enable_cache
print(enable_cache())
jax.jit(lambda x: x + 1.25)(2.0)
"""


def in_a_fresh_process(setting):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | {VARIABLE: str(setting)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.exact
def test_programs_are_kept(tmp_path):
    """A small program is kept too; without a place to write the program runs all the same."""
    assert in_a_fresh_process(tmp_path / "cache") == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    assert in_a_fresh_process(tmp_path / "file" / "cache") == "None"
