"""What all tests share: the compilation cache, float64, tiny models, and a count of compilations."""

import itertools
from pathlib import Path

import jax
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd.cache import enable_cache
from bayes_vs_sgd.simulate import Pace

pytest.register_assert_rewrite("statistical")
enable_cache()

MODELS = Path(__file__).parents[1] / "models"
_compiled: list[str] = []


def pytest_configure(config):
    # An entry of the compilation cache that another process is just writing is compiled again.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning")
    jax.monitoring.register_event_duration_secs_listener(_listen)


def _listen(event: str, duration: float, **details) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(details.get("fun_name", "?"))


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What a file compiled is let go of after it: a process that keeps all comes to 5 GB, and one crashed in loading more."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiled():
    """Return a function that says what was compiled since it was last called (programs from the cache count too)."""
    seen = len(_compiled)

    def since() -> list[str]:
        nonlocal seen
        new, seen = _compiled[seen:], len(_compiled)
        return new

    return since


@pytest.fixture(scope="session")
def tiny():
    """A 2-2-2 network of rank 1 with 20 examples, float32; ten parameters with the unseen input."""
    return bvs.load_model(MODELS / "deep_linear.py", widths=(2, 2, 2), spectrum=(1.0,), num_examples=20, noise=1.0)


@pytest.fixture(scope="session")
def target(tiny):
    """Its posterior at inverse temperature 1."""
    return bvs.Posterior(tiny)


@pytest.fixture(scope="module")
def network():
    """A 3-2-4-3 network in float64: its target and a position away from the optimum."""
    with jax.enable_x64(True):
        target = bvs.Posterior(
            bvs.load_model(
                MODELS / "deep_linear.py",
                widths=(3, 2, 4, 3),
                spectrum=(1.5, 0.5),
                num_examples=30,
                unseen_inputs=0,
                noise=1.0,
            )
        )
        position = target.unflat(jax.random.normal(jax.random.key(1), (target.model.num_parameters,)))
    return target, position


@pytest.fixture
def cut(monkeypatch):
    """Return a function that cuts what runs next into segments of the given lengths, over and over."""

    def into(*lengths):
        turn = itertools.cycle(lengths)
        monkeypatch.setattr(Pace, "length", lambda *args: next(turn))

    return into


@pytest.fixture
def load():
    """Load a model of the project by name."""
    return lambda name, **config: bvs.load_model(MODELS / f"{name}.py", **config)
