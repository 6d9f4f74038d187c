"""The sampler that suits a posterior: where NUTS stays in its wells, tempered particles."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd.diagnostics import mean_error, quality
from bayes_vs_sgd.reference import by_particles, of_particles, posterior_draws, resampled
from bayes_vs_sgd.tempered import Ladder

NOISE, NUM_EXAMPLES = 0.3, 64
PRIOR_MEAN = 0.4
"""Of the weight whose square is seen: the right well has exp(.8) times the left one's probability."""


def program(x, y=None):
    squared = numpyro.sample("squared", dist.Normal(PRIOR_MEAN, 1.0))
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand((2,)).to_event(1))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(squared**2 + x @ slopes, NOISE), obs=y)


def right_well(model, values):
    return jnp.asarray(values["squared"] > 0, float)


@pytest.fixture(scope="module")
def two_wells() -> bvs.Posterior:
    """Inputs sum to zero, so that the squared weight and the slopes are independent under the posterior."""
    half = np.random.default_rng(0).normal(size=(NUM_EXAMPLES // 2, 2))
    x = np.concatenate([half, -half])
    y = 1 + x @ [0.5, -0.5] + NOISE * np.random.default_rng(1).normal(size=NUM_EXAMPLES)
    observables = {"right_well": bvs.observable("function", primary=True)(right_well)}
    return bvs.Posterior(bvs.Model(program, data={"x": x, "y": y}, observables=observables))


def exact_share(target: bvs.Posterior) -> float:
    """P(squared > 0) by quadrature: the likelihood depends on it through the mean of y alone."""
    mean, points = float(jnp.mean(target.model.data["y"])), np.linspace(-3, 3, 60_001)
    log_density = stats.norm.logpdf(mean, points**2, NOISE / np.sqrt(NUM_EXAMPLES))
    density = np.exp(log_density + stats.norm.logpdf(points, PRIOR_MEAN, 1) - log_density.max())
    return float(density[points > 0].sum() / density.sum())


@pytest.mark.law
def test_particles_weigh_the_wells_that_nuts_stays_in(two_wells, tmp_path):
    """Error rate 1e-4 (4 standard errors); R-hat tells that NUTS is not to be believed, and the same draws of it come back."""
    names = ["loss", "right_well"]
    shared = {"num_chains": 16, "num_draws": 1000, "key": 3, "observables": names, "judged": names, "progress": False}
    drawn = posterior_draws(two_wells, folder=tmp_path, **shared)
    assert of_particles(drawn)
    assert quality(drawn, names).passed
    right = np.asarray(drawn["posterior"]["right_well"])
    exact, error = exact_share(two_wells), mean_error(right, False)
    assert 0.6 < exact < 0.8
    assert error < 0.02
    assert abs(right.mean() - exact) < 4 * error
    nuts = bvs.open_run(tmp_path)
    # Planted: taken for the posterior, it would give each well its chains' share.
    assert not quality(nuts, names).passed
    again = posterior_draws(two_wells, folder=tmp_path, mixes=False, **shared)
    np.testing.assert_array_equal(again["posterior"]["right_well"], right)


@pytest.mark.exact
def test_particles_stand_for_their_weights():
    weights = np.array([0.5, 0.0, 0.25, 0.25])
    nothing = np.zeros(1)
    ladder = Ladder(0.0, *[nothing] * 7, 0.0, np.arange(4.0)[:, None], weights)
    assert resampled(ladder)[:, 0].tolist() == [0, 0, 2, 3]


@pytest.mark.law
def test_particles_that_do_not_arrive_are_no_posterior(two_wells, monkeypatch):
    monkeypatch.setattr("bayes_vs_sgd.tempered.MOST_STAGES", 1)
    assert by_particles(two_wells, 0, ["loss"], num_particles=100, num_replicates=2) is None


@pytest.mark.law
def test_particles_that_would_take_too_long_are_given_up(two_wells, monkeypatch):
    monkeypatch.setattr("bayes_vs_sgd.tempered.REMEMBERED", -1.0)
    said = []
    assert by_particles(two_wells, 0, ["loss"], None, said.append, max_seconds=1e-3) is None
    assert "longer than" in said[-1]
