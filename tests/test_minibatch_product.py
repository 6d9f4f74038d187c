"""The law of two weights under minibatch noise: no flux, a special case, SGD itself, and what is refused."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from statistical import planted_bug

import bayes_vs_sgd as bvs
from bayes_vs_sgd.results import final_positions
from bayes_vs_sgd.theory.collapse import square_law
from bayes_vs_sgd.theory.minibatch_product import MinibatchProductLaw

LAW = MinibatchProductLaw(curvature=1.3, force=0.9, noise=(2.0, -0.3, 1.5), temperature=0.4)


def assert_no_flux(drift):
    """(D p)' / 2 = drift p with D = 4 s^2 kappa q."""
    q2, q1, q0 = LAW.noise
    step, s = 1e-5, np.array([0.05, 0.4, 0.9, 2.5])

    def flow(s):
        return 4 * s**2 * LAW.temperature * (q2 * s**2 - 2 * q1 * s + q0) * np.exp(LAW.log_density(s))

    slope = (flow(s + step) - flow(s - step)) / (2 * step)
    flux = slope / 2 / (drift(s) * np.exp(LAW.log_density(s))) - 1
    assert np.max(np.abs(flux)) < 1e-7, f"relative flux differs from 0: {flux}"


@pytest.mark.exact
def test_it_has_no_flux():
    (q2, q1, q0), kappa = LAW.noise, LAW.temperature

    def pull(s):
        return 2 * s * (LAW.force - LAW.curvature * s)

    def q(s):
        return q2 * s**2 - 2 * q1 * s + q0

    assert_no_flux(lambda s: pull(s) + s * kappa * q(s))
    with planted_bug():  # Stratonovich's drift: D' / 4 more
        assert_no_flux(lambda s: pull(s) + s * kappa * q(s) + kappa * (2 * s * q(s) + s**2 * (2 * q2 * s - 2 * q1)))


@pytest.mark.exact
def test_its_table_is_its_density():
    mass = quad(lambda u: np.exp(LAW.log_density(np.exp(u)) + u), -60, 60, limit=1000, epsabs=0, points=[0])[0]
    for s in (0.1, 0.7, 3.0):
        below = quad(lambda u: np.exp(LAW.log_density(np.exp(u)) + u), -60, np.log(s), limit=1000, epsabs=0)[0]
        assert LAW.cdf(np.array([s]))[0] == pytest.approx(below / mass, rel=1e-6)
        assert LAW.cdf(LAW.quantile(np.array([below / mass])))[0] == pytest.approx(below / mass, rel=1e-4)
    assert LAW.cdf(np.array([0.0, np.inf])) == pytest.approx([0, 1])


@pytest.mark.exact
def test_noise_of_one_size_has_a_gamma_law():
    """As q2 goes to 0; what it still adds is of the order of q2."""
    s = np.array([0.5, 0.9, 1.3])
    law = MinibatchProductLaw(1.0, 1.0, (1e-9, 0.0, 1.0), 0.2)
    np.testing.assert_allclose(law.cdf(s), square_law(1.0, np.sqrt(0.2)).cdf(s), rtol=1e-6)


@pytest.mark.law
def test_it_is_where_sgd_ends(load):
    """One seed, 8,000 runs of 20 units of time from the balanced prior: the level of the test is 1e-6.

    The step of SGD shifts the law by the order of the rate x sharpness, .02: the test sees .03.
    """
    model, rate, batch, number = load("product", target=1.0, num_examples=20), 0.01, 1, 8000
    x, y = (np.asarray(model.data[k], float) for k in "xy")
    law = MinibatchProductLaw.of_data(x, y, rate, batch)
    start = np.abs(np.random.default_rng(0).normal(1, 0.2, size=number))
    tree = bvs.simulate(
        bvs.SGD(rate, batch),
        bvs.Posterior(model),
        key=0,
        num_chains=number,
        num_steps=int(20 / rate),
        num_draws=1,
        initial={"w1": start, "w2": start},
        progress=False,
    )
    ends, _ = final_positions(tree)
    products = np.asarray(ends["w1"] * ends["w2"], float)
    assert stats.kstest(products, law.cdf).pvalue > 1e-6
    wrong = square_law(law.force / law.curvature, np.sqrt(law.temperature * law.noise[2]))
    assert stats.kstest(products, wrong.cdf).pvalue < 1e-6  # the noise at s = 0, everywhere


@pytest.mark.smoke
def test_what_cannot_be_is_refused():
    with pytest.raises(bvs.InputError, match=r"from 0\.5 on all mass is at 0"):
        MinibatchProductLaw(1.0, 1.0, (1.0, 0.0, 4.0), 0.5)
    with pytest.raises(bvs.InputError, match="must be positive for every product"):
        MinibatchProductLaw(1.0, 1.0, (1.0, 2.0, 4.0), 0.1)
