"""The law of two and more weights under minibatch noise: no flux, a special case, SGD itself, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from statistical import planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.collapse import square_law
from bayes_vs_sgd.theory.minibatch_product import MinibatchProductLaw

LAWS = [MinibatchProductLaw(1.3, 0.9, (2.0, -0.3, 1.5), 0.4, num_weights) for num_weights in (2, 3, 5)]
of_all = pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.num_weights} weights")


def assert_no_flux(law, drift, diffusion):
    """(D p)' / 2 = drift p, by central differences of relative error 1e-7."""
    step, s = 1e-5, np.array([0.05, 0.4, 0.9, 2.5])
    here = law.log_density(s)

    def flow(s):
        return diffusion(s) * np.exp(law.log_density(s) - here)

    slope = (flow(s + step) - flow(s - step)) / (2 * step)
    flux = slope / 2 / drift(s) - 1
    assert np.max(np.abs(flux)) < 1e-6, f"relative flux differs from 0: {flux}"


@pytest.mark.exact
@of_all
def test_it_has_no_flux(law):
    """In the product, by Ito's formula from the equation of one weight: dw = w^(L-1) ((b - a s) dt + sqrt(kappa q) dB)."""
    count, kappa = law.num_weights, law.temperature

    def diffusion(s):
        return (count * s ** (1 - 1 / count)) ** 2 * noise(s)

    def noise(s):
        return kappa * law.variance(s) * s ** (2 - 2 / count)

    def drift(s):
        first, second = count * s ** (1 - 1 / count), count * (count - 1) * s ** (1 - 2 / count)
        return first * s ** (1 - 1 / count) * (law.force - law.curvature * s) + second * noise(s) / 2

    assert_no_flux(law, drift, diffusion)
    with planted_bug():  # Stratonovich's drift: D' / 4 more
        assert_no_flux(law, lambda s: drift(s) + (diffusion(s + 1e-6) - diffusion(s - 1e-6)) / 8e-6, diffusion)


@pytest.mark.exact
@of_all
def test_its_table_is_its_density(law):
    low, high = law._table[0][[0, -1]]
    mass = quad(lambda u: np.exp(law.log_density(np.exp(u)) + u), low, high, limit=2000, epsabs=0, points=[-1, 0, 1])[0]
    for s in (0.4, 0.7, 3.0):
        below = quad(lambda u: np.exp(law.log_density(np.exp(u)) + u), low, np.log(s), limit=2000, epsabs=0)[0]
        assert law.cdf(np.array([s]))[0] == pytest.approx(below / mass, rel=1e-6)
        assert law.cdf(law.quantile(np.array([below / mass])))[0] == pytest.approx(below / mass, rel=1e-4)
    assert law.cdf(np.array([0.0, np.inf])) == pytest.approx([0, 1])


@pytest.mark.exact
@of_all
def test_its_tail_is_the_power_that_it_says(law):
    far = np.log(np.array([1e6, 1e7]))
    slope = np.diff(law.log_density(np.exp(far)))[0] / np.diff(far)[0]
    assert slope == pytest.approx(-5 + 3 / law.num_weights, abs=1e-3)


@pytest.mark.exact
def test_noise_of_one_size_has_a_gamma_law():
    """As q2 goes to 0; what it still adds is of the order of q2."""
    s = np.array([0.5, 0.9, 1.3])
    law = MinibatchProductLaw(1.0, 1.0, (1e-9, 0.0, 1.0), 0.2)
    np.testing.assert_allclose(law.cdf(s), square_law(1.0, np.sqrt(0.2)).cdf(s), rtol=1e-6)


@pytest.mark.law
@pytest.mark.parametrize("depth", [2, 3])
def test_it_is_where_sgd_ends(load, depth):
    """One seed, 8,000 runs of 20 units of time from equal weights: the level of the test is 1e-6.

    The step of SGD shifts the law by the order of the rate x sharpness, .02 and .03: the test sees .03.
    """
    model, rate, batch, number = load("product", depth=depth, target=1.0, num_examples=20), 0.01, 1, 8000
    x, y = (np.asarray(model.data[k], float) for k in "xy")
    law = MinibatchProductLaw.of_data(x, y, rate, batch, depth)
    start = np.abs(np.random.default_rng(0).normal(1, 0.2, size=number))
    tree = bvs.simulate(
        bvs.SGD(rate, batch),
        bvs.Posterior(model),
        key=0,
        num_chains=number,
        num_steps=int(20 / rate),
        num_draws=1,
        initial={site: start for site, _ in model.latents},
        progress=False,
    )
    ends, _ = final_positions(tree)
    products = np.prod([np.asarray(end, float) for end in ends.values()], axis=0)
    assert stats.kstest(products, law.cdf).pvalue > 1e-6
    wrong = [replace(law, noise=(1e-9, 0.0, law.noise[2]))]  # the noise at s = 0, everywhere
    wrong += [replace(law, num_weights=5 - depth)]
    for other in wrong:
        assert stats.kstest(products, other.cdf).pvalue < 1e-6


@pytest.mark.smoke
def test_what_cannot_be_is_refused():
    with pytest.raises(bvs.InputError, match=r"from 0\.5 on all mass is at 0"):
        MinibatchProductLaw(1.0, 1.0, (1.0, 0.0, 4.0), 0.5)
    with pytest.raises(bvs.InputError, match="must be positive for every product"):
        MinibatchProductLaw(1.0, 1.0, (1.0, 2.0, 4.0), 0.1)
    with pytest.raises(bvs.InputError, match="must be at least 2"):
        MinibatchProductLaw(1.0, 1.0, (1.0, 0.0, 4.0), 0.5, 1)
