"""A user's model file loads with its settings, and an error in it shows the user's line."""

from pathlib import Path

import pytest

import bayes_vs_sgd as bvs

GOOD = """
from dataclasses import dataclass
import numpy as np, numpyro, numpyro.distributions as dist
import bayes_vs_sgd as bvs

@dataclass(frozen=True)
class Config:
    num_examples: int = 5

def program(y):
    w = numpyro.sample("w", dist.Normal(0, 1))
    with numpyro.plate("examples", y.shape[0]):
        numpyro.sample("y", dist.Normal(w, 1), obs=y)

def build(config, key):
    return bvs.Model(program, {"y": np.arange(float(config.num_examples))})
"""


def write(folder, text, name="mine.py"):
    path = Path(folder) / name
    path.write_text(text)
    return path


@pytest.mark.exact
def test_a_users_file_loads_with_its_settings(tmp_path):
    path = write(tmp_path, GOOD)
    assert bvs.load_model(path).num_examples == 5
    assert bvs.load_model(path, num_examples=8).num_examples == 8
    one, two = bvs.load_model(path), bvs.load_model(path)
    assert one.program == two.program
    other = bvs.load_model(write(tmp_path, GOOD.replace("Normal(w, 1)", "Normal(w, 2)"), "other.py"))
    assert one.program != other.program


LOAD_ERRORS = {
    "syntax": (
        GOOD.replace("def build(config, key):", "def build(config, key)"),
        r"line 15: .*def build\(config, key\)",
    ),
    "import": (
        GOOD.replace("import numpy as np,", "import numpi as np,"),
        r"line 3: import numpi.*ModuleNotFoundError",
    ),
    "no Config": (GOOD.replace("class Config", "class Settings"), "has no Config: a model file defines"),
    "no build": (GOOD.replace("def build", "def make"), "has no build: a model file defines"),
    "no dataclass": (GOOD.replace("@dataclass(frozen=True)", ""), "is not a dataclass"),
    "in build": (GOOD.replace("np.arange(", "np.arrange("), r"line 16: .*np\.arrange.*AttributeError"),
    "in program": (GOOD.replace("dist.Normal(w, 1)", "dist.Normal(v, 1)"), r"line 13: .*Normal\(v, 1\).*NameError"),
    "wrong return": (GOOD.replace("return bvs.Model(program, ", "return dict("), "must return a bayes_vs_sgd.Model"),
    "contract": (GOOD.replace('"examples"', '"data"'), r"mine\.py: observed site 'y' is outside a plate"),
}


@pytest.mark.exact
@pytest.mark.parametrize("kind", LOAD_ERRORS)
def test_load_errors_show_the_users_line(kind, tmp_path):
    text, message = LOAD_ERRORS[kind]
    if kind == "wrong return":
        text = text.replace('dict({"y": np.arange(float(config.num_examples))})', "dict(y=1)")
    with pytest.raises(bvs.InputError, match=message):
        bvs.load_model(write(tmp_path, text))


@pytest.mark.exact
def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, GOOD, "deep_linear.py")
    with pytest.raises(bvs.InputError, match=r"no model file at .*deep_liner\.py: did you mean 'deep_linear\.py'"):
        bvs.load_model(tmp_path / "deep_liner.py")
    with pytest.raises(bvs.InputError, match="no such folder"):
        bvs.load_model(tmp_path / "nowhere" / "deep_linear.py")


@pytest.mark.exact
def test_an_unknown_setting_names_the_nearest(tmp_path):
    with pytest.raises(bvs.InputError, match="has no setting 'num_example': did you mean 'num_examples'"):
        bvs.load_model(write(tmp_path, GOOD), num_example=4)
