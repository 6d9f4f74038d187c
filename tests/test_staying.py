"""SGD on condition that it stays in a set, against the leading eigenvector of a killed autoregression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from statistical import assert_mean, planted_bug
from test_splitting import BATCH, RATE, STEPS, labels, two_sided_tail

import bayes_vs_sgd as bvs
from bayes_vs_sgd.claims.programs import quadratic
from bayes_vs_sgd.function import Function
from bayes_vs_sgd.robustness import staying
from bayes_vs_sgd.robustness.properties import Property
from bayes_vs_sgd.robustness.splitting import Runs

SIZE, THRESHOLD, ETA, SHARES = 1.0, 0.5, 0.3, 16
SPREAD = SIZE * np.sqrt(1 - (1 - ETA) ** 2) / ETA
"""Of one gradient, with which the stationary law of theta' = (1 - eta) theta - eta spread xi has the standard deviation SIZE."""


def runs(num_steps):
    """One weight on a parabola, gradients with normal noise, and the event |theta| > c."""
    model = quadratic(np.eye(1), np.eye(1) * SPREAD**2)
    dynamics = bvs.SGD(ETA, sampling=bvs.GaussianNoise(1))
    target = bvs.Posterior(model)
    item = Property(Function(lambda model, values: jnp.abs(values["theta"][0])))
    numbers = jnp.ones(()), jnp.asarray(num_steps), jnp.asarray(THRESHOLD)
    return Runs(item, dynamics.prepare(target), target, *numbers)


def quasi_stationary():
    """P(|theta| > c) and the escape rate: the kernel on [-a, a] by quadrature, and its leading left eigenvector."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    nodes, weights = SIZE * nodes, SIZE * weights
    kernel = norm.pdf(nodes[None], (1 - ETA) * nodes[:, None], ETA * SPREAD) * weights
    values, vectors = np.linalg.eig(kernel.T)
    leading = np.argmax(np.real(values))
    law = np.real(vectors[:, leading])
    return law[np.abs(nodes) > THRESHOLD].sum() / law.sum(), 1 - np.real(values[leading])


def conditioned(level):
    task, rng = runs(400), np.random.default_rng(0)
    starts = SIZE * rng.normal(size=(SHARES, 400, 1))
    return [staying.stay(task, part, level, jax.random.key(i)) for i, part in enumerate(starts)]


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_the_law_of_runs_that_stay_is_the_leading_eigenvector():
    """|theta| <= one stationary standard deviation; planted: the runs that are inside at the end, and rates of those."""
    least = float(runs(1).target.model.loss({"theta": jnp.zeros(1)}))
    share, rate = quasi_stationary()
    found = conditioned(least + SIZE**2 / 2)
    assert max(np.abs(run.ends).max() for run in found) <= SIZE * (1 + 1e-12)
    beyond = np.array([np.mean(run.values > THRESHOLD) for run in found])
    assert_mean(beyond, expected=share, detects=0.02)
    rates = np.array([run.escapes(later) for run in found for later in (False, True)]).reshape(-1, 2).mean(axis=1)
    assert_mean(rates, expected=rate, detects=0.005)
    free = conditioned(np.inf)
    inside = [[run.values[run.values <= SIZE] > THRESHOLD, run.values > SIZE] for run in free]
    at_end, outside = np.array([[np.mean(b), np.mean(o)] for b, o in inside]).T
    truncated = 1 - np.diff(norm.cdf([-THRESHOLD, THRESHOLD]))[0] / np.diff(norm.cdf([-SIZE, SIZE]))[0]
    assert_mean(at_end, expected=truncated, detects=0.02)
    with planted_bug():
        assert_mean(at_end, expected=share, detects=0.02)
    with planted_bug():
        assert_mean(outside, expected=rate, detects=0.02)


@pytest.mark.law
@pytest.mark.usefixtures("x64")
def test_it_is_asked_for_by_a_sublevel_set(tmp_path):
    """What nobody leaves is the law of SGD; what is left has a rate and no member outside; a killed run goes on."""
    model = labels()
    settings = {
        "learning_rate": RATE,
        "batch_size": BATCH,
        "num_steps": STEPS,
        "num_seeds": 4000,
        "initial_scale": 1e-6,
    }
    settings |= {"law": "sgd", "num_replicates": 16}
    free = bvs.robustness(model, "size", 0.1, excess_loss=1.0, **settings)
    assert free.trusted, free.warnings
    assert free.escape_rate is not None
    assert free.escape_rate.value == 0
    both = np.mean([free.replicates[f"{name}_quarter"] for name in ("third", "last")], axis=0)
    assert_mean(both, expected=two_sided_tail(0.1), detects=0.04)
    kept = bvs.robustness(model, "size", 0.1, excess_loss=0.15**2 / 2, folder=tmp_path, **settings)
    assert kept.trusted, kept.warnings
    assert kept.escape_rate is not None
    assert 0.001 < kept.escape_rate.value < 0.1
    assert kept.probability < free.probability / 1.5
    assert all(0.1 < member.value <= 0.15 + 1e-12 for member in kept.members)
    assert "of the runs of SGD that stay in the set have size > 0.1" in kept.in_words()
    next((tmp_path / "staying").iterdir()).unlink()
    again = bvs.robustness(model, "size", 0.1, excess_loss=0.15**2 / 2, folder=tmp_path, **settings)
    assert (again.replicates, again.escape_rate) == (kept.replicates, kept.escape_rate)
    with pytest.raises(bvs.InputError, match="no run of SGD is in the set"):
        bvs.robustness(model, "size", 0.1, excess_loss=1e-12, **settings)
    with pytest.raises(bvs.InputError, match="give it without --against"):
        bvs.robustness(model, "size", 0.1, excess_loss=1.0, against="posterior", **settings)
