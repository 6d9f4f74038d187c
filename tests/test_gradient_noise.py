"""Trace and rank of the noise of one example's gradient, of few parameters and of many."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

import bayes_vs_sgd as bvs
from bayes_vs_sgd import curvature
from bayes_vs_sgd.claims.programs import regression
from bayes_vs_sgd.curvature import example_gradients, gradient_noise, noise_trace
from bayes_vs_sgd.settings import Compare


def of_rank(number, size, rank, seed=0):
    """A regression of whose inputs so many are independent, and a position away from its optimum."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, rank)) @ rng.normal(size=(rank, size))
    return regression(x, rng.normal(size=number)), {"w": jnp.asarray(rng.normal(size=size))}


@pytest.mark.exact
@pytest.mark.parametrize(("number", "size", "rank"), [(12, 30, 30), (12, 30, 5), (40, 15, 15), (40, 15, 4)])
def test_products_in_blocks_have_the_trace_and_the_rank_of_the_gradients(monkeypatch, x64, number, size, rank):
    """Of fewer examples than parameters and of more; the gradients' rank is one less where there are too few examples."""
    model, position = of_rank(number, size, rank)
    dense, trace = gradient_noise(model, position), noise_trace(model, position)
    assert dense.rank == min(rank, number - 1)
    assert trace == pytest.approx(dense.trace)
    assert trace == pytest.approx(np.trace(np.cov(np.asarray(example_gradients(model, position)).T, bias=True)))
    shapes = []

    def seen(model, position, rows=None):
        shapes.append(None if rows is None else len(rows))
        return example_gradients(model, position, rows)

    monkeypatch.setattr(curvature, "DENSE", 0)
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 5 * size)
    monkeypatch.setattr(curvature, "example_gradients", seen)
    found = gradient_noise(model, position)
    assert found.trace == pytest.approx(dense.trace)
    assert found.rank == dense.rank
    assert noise_trace(model, position) == pytest.approx(dense.trace)
    assert set(shapes) <= {4, 5}


@pytest.mark.exact
def test_of_many_parameters_few_gradients_are_held_at_once(monkeypatch):
    """Planted: all of them, in double precision, and their singular values: twice their size at the least."""
    number, size = 60, 20_000
    model, position = of_rank(number, size, 7)
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 4 * size)

    def peak(run):
        tracemalloc.start()
        result = run()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result, most

    gradient_noise(model, position)  # what is compiled is compiled
    whole = 8 * number * size
    found, most = peak(lambda: gradient_noise(model, position))
    assert most < whole / 2
    assert found.rank == 7
    assert peak(lambda: np.linalg.svd(np.array(example_gradients(model, position), float), compute_uv=False))[1] > whole
    traced, most = peak(lambda: noise_trace(model, position))
    assert most < whole / 2
    assert traced == pytest.approx(found.trace, rel=1e-5)


@pytest.mark.exact
def test_a_study_finds_the_noise_at_its_minimum_once(monkeypatch, load):
    """Theory, Adam's learning rate and every comparison ask for it."""
    asked = []
    monkeypatch.setattr(
        "bayes_vs_sgd.comparison.plan.gradient_noise", lambda *given: asked.append(given) or gradient_noise(*given)
    )
    study = bvs.Study(load("linear_regression"), Compare(dynamics=("sgd", "adam")), progress=False)
    assert study.theory == pytest.approx(
        2 * study.settings.batch_size / (study.learning_rate * study.noise.per_direction)
    )
    assert isinstance(study.dynamics("adam"), bvs.Optimizer)
    assert len(asked) == 1
