"""Gibbs, NUTS and the grid sample the exact posterior of a product of two weights."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.integrate import dblquad
from statistical import assert_mean, chain_mean, planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.theory.product import product_moments

CASES = [(20, 1.0), (5, 1.0), (20, 0.0)]  # b and s; gamma = 1
NUM_EXAMPLES = 20
SAMPLERS = {
    "gibbs": (bvs.LinearNetworkGibbs(("w1", "w2"), 1.0, 1.0), {"num_chains": 16, "num_draws": 4000}),
    "nuts": (bvs.NUTS(step_size=0.3), {"num_chains": 16, "num_draws": 1000, "num_warmup": 200}),
    "grid": (bvs.Grid(2**18), {"num_chains": 16, "num_draws": 1000}),
}
DETECTS = {"gibbs": (0.02, 0.01, 0.06), "nuts": (0.05, 0.025, 0.2), "grid": (0.04, 0.02, 0.15)}
"""Smallest errors of E z, Var z and the energy seen at b = 20; at b = 5 they are four times as large (E z: twice)."""


@pytest.mark.exact
@pytest.mark.parametrize(
    ("b", "s", "expected"),
    [(20, 1, (0.925547, 0.051425, 0.569681)), (5, 1, (0.677878, 0.202129, 0.764728)), (20, 0, (0, 0.029027, 0.290274))],
)
def test_numbers_of_the_notes(b, s, expected):
    np.testing.assert_allclose(product_moments(b, s), expected, atol=6e-7)


@pytest.mark.exact
def test_against_the_integral_over_both_weights():
    """The moments of z are those of w_1 w_2 under the two-dimensional density, without any Bessel function."""

    def integral(function):
        def integrand(v, u):
            return np.exp(-(u**2 + v**2) - 1.5 * (u * v - 0.7) ** 2) * function(u * v)

        return dblquad(integrand, -6, 6, -6, 6, epsabs=1e-10, epsrel=1e-10)[0]

    total = integral(lambda z: 1.0)
    mean, square = integral(lambda z: z) / total, integral(lambda z: (z - 0.7) ** 2) / total
    found = product_moments(3.0, 0.7, prior_precision=2.0)
    np.testing.assert_allclose(found, (mean, square - (mean - 0.7) ** 2, 1.5 * square), rtol=1e-8)


@pytest.mark.exact
@pytest.mark.parametrize("precision", [1e3, 1e8])
def test_far_from_the_singularity_it_is_a_gaussian(precision):
    """At z = 3 the prior is smooth: the variance is 1/b and the energy 1/2, up to O(1/b)."""
    found = product_moments(precision, 3.0)
    np.testing.assert_allclose((found.variance * precision, found.energy), (1, 0.5), atol=2 / precision)


@pytest.mark.exact
def test_impossible_precisions_are_refused():
    with pytest.raises(bvs.InputError, match="must be finite and > 0"):
        product_moments(0.0, 1.0)


def posterior(b, s, prior_scale=1.0):
    """Twenty examples with mean s: -log likelihood = (beta 20 / 2)(z - s)^2 + constant, so beta = b / 20."""

    def program(x, y=None):
        w1 = numpyro.sample("w1", dist.Normal(0, prior_scale))
        w2 = numpyro.sample("w2", dist.Normal(0, prior_scale))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(w1 * w2 * x, 1.0), obs=y)

    noise = np.random.default_rng(0).normal(size=NUM_EXAMPLES)
    data = {"x": np.ones(NUM_EXAMPLES), "y": s + noise - noise.mean()}
    model = bvs.Model(program, data, observables={"z": lambda model, values: values["w1"] * values["w2"]})
    return bvs.Posterior(model, inverse_temperature=b / NUM_EXAMPLES)


def moments(tree, b, s):
    """Estimates of E z, Var z and the energy, with their standard errors."""
    z, exact = tree["posterior"]["z"], product_moments(b, s)
    values = {"mean": z, "variance": (z - exact.mean) ** 2, "energy": 0.5 * b * (z - s) ** 2}
    tree["posterior"] = tree["posterior"].to_dataset().assign(values)
    return np.transpose([chain_mean(tree, name) for name in values])


@pytest.mark.law
@pytest.mark.parametrize(("b", "s"), CASES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_agree_with_the_exact_moments(name, b, s):
    sampler, settings = SAMPLERS[name]
    tree = bvs.simulate(sampler, posterior(b, s), key=3, observables=["z"], progress=False, **settings)
    detects = np.array(DETECTS[name]) * ((2, 4, 4) if b == 5 else 1)
    assert_mean(*moments(tree, b, s), expected=product_moments(b, s), detects=detects)


@pytest.mark.law
def test_a_tempered_prior_is_seen():
    """A sampler that tempers the prior too has prior precision beta: here 1/4, the law of scale 2."""
    gibbs = bvs.LinearNetworkGibbs(("w1", "w2"), 1.0, 2.0)
    tree = bvs.simulate(gibbs, posterior(5, 1.0, 2.0), key=3, observables=["z"], num_chains=16, num_draws=4000)
    detects = np.array(DETECTS["gibbs"]) * (2, 4, 4)
    estimate = moments(tree, 5, 1.0)
    assert_mean(*estimate, expected=_about(product_moments(5, 1.0, 0.25), product_moments(5, 1.0)), detects=detects)
    with planted_bug():
        assert_mean(*estimate, expected=product_moments(5, 1.0), detects=detects)


def _about(law, reference):
    """The second moment of a law about another's mean in the place of the variance."""
    return law.mean, law.variance + (law.mean - reference.mean) ** 2, law.energy


@pytest.mark.exact
def test_the_wrong_prior_is_refused_before_it_runs():
    gibbs = bvs.LinearNetworkGibbs(("w1", "w2"), 1.0, 2.0)
    with pytest.raises(bvs.InputError, match=r"not exact for 'w1'.*prior_scale"):
        bvs.simulate(gibbs, posterior(5, 1.0), key=0, num_draws=2)
