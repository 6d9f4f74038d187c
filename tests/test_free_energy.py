"""Log evidence by tempered SMC against closed forms and one-dimensional quadrature; wrong settings are seen."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayes_vs_sgd as bvs
from bayes_vs_sgd import tempered
from bayes_vs_sgd.estimate import with_error
from bayes_vs_sgd.report.estimates import asymptotic_form
from bayes_vs_sgd.theory.evidence import regression_log_evidence, two_layer_log_evidence

RATE = 1e-6
CASES = {
    "regression": ("linear_regression", {"num_examples": 50, "covariance": (2.0, 1.0, 0.5, 0.25, 0.125)}, 1.0),
    "tempered": ("linear_regression", {"num_examples": 50}, 0.3),
    "product, truth 0": ("product", {"num_examples": 100}, 1.0),
    "product, truth 1": ("product", {"num_examples": 100, "target": 1.0}, 1.0),
    "network": ("deep_linear", {"widths": (3, 4, 1), "spectrum": (1.0,), "unseen_inputs": 0, "num_examples": 50}, 1.0),
}


def exact(model, name, beta):
    x, y = (np.asarray(model.data[k], float) for k in "xy")
    if name == "linear_regression":
        return regression_log_evidence(x, y, 1.0, 1.0, beta)
    hidden, noise = (4, 3.0) if name == "deep_linear" else (1, 1.0)
    return two_layer_log_evidence(x.reshape(len(x), -1), y.ravel(), hidden, noise, 1.0, beta)


def not_refused(model, *args, **settings):
    """The first answer of two keys that is trusted: one is refused by chance in 1e-3, so both in `RATE`."""
    found = bvs.free_energy(model, *args, **settings)
    return found if found.trusted else bvs.free_energy(model, *args, **settings, key=1)


@pytest.mark.law
@pytest.mark.parametrize(
    "case", [c if c in ("tempered", "network") else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_it_is_the_exact_one(case, load, x64):
    """Within .1 nat, which is three to eight standard errors; four replicates alone would allow 130 of them.

    So is thermodynamic integration, which in t itself, and not in its logarithm, is .4 off where there are eight stages.
    """
    name, config, beta = CASES[case]
    model = load(name, **config)
    found = not_refused(model, beta, num_particles=1000)
    evidence, integral = found.log_evidence, found.thermodynamic_integration
    gap = evidence.value - exact(model, name, beta)
    assert abs(gap) < 0.1
    assert evidence.standard_error < 0.1
    assert abs(integral.value - exact(model, name, beta)) < 0.1
    assert integral.standard_error < 0.1
    assert found.trusted, found.warnings
    assert abs(integral.value - evidence.value) < 3 * np.hypot(integral.standard_error, evidence.standard_error)


@pytest.mark.law
def test_too_few_moves_are_seen(load, x64):
    """One short trajectory a stage, where the weights lie on a thin curved fibre."""
    model = load("deep_linear", **CASES["network"][1], noise=0.1)
    found = bvs.free_energy(model, num_particles=300, num_moves=1)
    assert not found.trusted
    assert found.memory > 0.2
    assert any("give more moves" in warning for warning in found.warnings)


@pytest.mark.exact
def test_replicates_that_are_kept_are_not_run_again(load, x64, tmp_path, monkeypatch):
    import importlib

    settings = {"num_particles": 50, "num_moves": 1, "num_replicates": 2, "folder": tmp_path}
    model = load("product", num_examples=20)
    first = bvs.free_energy(model, **settings)
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(importlib.import_module("bayes_vs_sgd.tempered"), "_replicate", None)
    again = bvs.free_energy(model, **settings)
    assert again.to_json() == first.to_json()
    with pytest.raises(TypeError):  # another temperature is another target
        bvs.free_energy(model, 0.5, **settings)


def regression(num_weights, num_examples):
    """Linear regression of noise .5, drawn as the examples whose log Z is known to four digits were."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(num_examples, num_weights)), rng.normal(size=num_weights)

    def program(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1).expand((num_weights,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

    return bvs.Model(program, {"x": x, "y": x @ w + 0.5 * rng.normal(size=num_examples)})


def product(truth):
    """Two weights in a row, on a hundred examples."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 100))

    def program(x, y=None):
        a, b = (numpyro.sample(name, dist.Normal(0, 1)) for name in "ab")
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(a * b * x, 0.5), obs=y)

    return bvs.Model(program, {"x": x, "y": truth * x + 0.5 * noise})


def network():
    """Sixteen weights on fifty examples, whose third input is always 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1.0, 1.0, 0.0]
    y = x @ [1.0, -0.5, 0.0] + 0.5 * rng.normal(size=50)

    def program(x, y=None):
        first = numpyro.sample("first", dist.Normal(0, 1).expand((4, 3)).to_event(2))
        second = numpyro.sample("second", dist.Normal(0, 1).expand((4,)).to_event(1))
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ (second @ first), 0.5), obs=y)

    return bvs.Model(program, {"x": x, "y": y})


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "known", "more"),
    [
        (partial(regression, 5, 100), -79.9845, {}),
        (partial(regression, 20, 200), -204.1466, {}),
        (partial(product, 0.0), -70.16256, {"functional_variance": 0.5704, "wbic": 70.16256 - 0.34}),
        (partial(product, 1.0), -72.34156, {"functional_variance": 0.7419, "wbic": 72.34156 - 1.71}),
        (network, -39.644004, {}),
    ],
    ids=["five weights", "twenty weights", "product of truth 0", "product of truth 1", "network"],
)
def test_examples_whose_evidence_is_known(make, known, more, x64):
    """By quadrature or a closed form, to the digits that are given: log Z, functional variance and WBIC."""
    found = not_refused(make(), num_replicates=8)
    assert found.trusted, found.warnings
    assert abs(found.log_evidence.value - known) < 0.1
    for name, value in {"log_evidence": known, **more}.items():
        estimate, rounded = getattr(found, name), 0.005 if name == "wbic" else 5e-5
        gap = abs(estimate.value - value)
        assert gap < rounded + stats.t.isf(RATE / 2, 7) * estimate.standard_error, name
        most = 0.05 if name == "functional_variance" else 0.1  # which eight replicates alone would allow
        assert gap < most, name


def random_walk(root, step_size, most):
    """In the place of trajectories: Metropolis steps of the particles' covariance times 2.38^2 / d."""

    def strategy(init, log_density, step, num_mcmc_steps, n_particles):
        def update(keys, particles, _):
            def move(key, here, density):
                key_step, key_test = jax.random.split(key)
                there = here + 2.38 / here.size**0.5 * root @ jax.random.normal(key_step, here.shape)
                new = log_density(there)
                accept = jnp.log(jax.random.uniform(key_test)) < new - density
                return jnp.where(accept, there, here), jnp.where(accept, new, density), accept

            def body(index, carry):
                here, densities, accepted = carry
                moves = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
                here, densities, accept = jax.vmap(move)(moves, here, densities)
                return here, densities, accepted + accept.mean()

            carry = (particles, jax.vmap(log_density)(particles), jnp.zeros(()))
            moved, _, accepted = jax.lax.fori_loop(0, num_mcmc_steps, body, carry)
            return moved, (step_size, num_mcmc_steps, accepted / num_mcmc_steps, particles, moved)

        return update, n_particles

    return strategy


@pytest.fixture
def walking(monkeypatch):
    """A sampler whose particles walk."""
    monkeypatch.setattr(tempered, "_moves", random_walk)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.law
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_moves": 1, "target_ess": 0.5, "num_replicates": 24, "num_particles": 1000}, "k moves give"),
        ({"num_moves": 10, "target_ess": 0.5}, "still remember"),
        ({"num_moves": 10, "target_ess": 0.9}, "still remember"),
        ({"num_moves": 50, "target_ess": 0.5}, None),
    ],
    ids=["1 move", "10 moves", "10 moves, small stages", "50 moves"],
)
def test_settings_that_are_wrong_for_a_random_walk_are_seen(settings, reason, x64, walking):
    """In twenty dimensions: of ten moves k and 2k may agree and both be off, which what they remember tells."""
    found = bvs.free_energy(regression(20, 200), **settings)
    gap = abs(found.log_evidence.value + 204.1466)
    assert found.trusted == (reason is None), found.warnings
    if reason is None:
        assert gap < 0.2  # four replicates of a spread of .1: four standard errors
    else:
        assert any(reason in warning for warning in found.warnings)
        assert gap > 0.5 or settings["num_moves"] > 1


@pytest.mark.exact
def test_the_scale_mixture_is_the_double_integral():
    """Of w = (a, b), on a grid of the plane, at beta 1 and .4, on data far from the origin and near it."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 12))
    for truth, beta in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.4)):
        y = truth * x + noise

        line = np.linspace(-9, 9, 1801)  # the trapezoid rule converges exponentially on what vanishes at the ends
        a, b = line[:, None], line[None]
        fit = sum(stats.norm.logpdf(y_i, a * b * x_i) for x_i, y_i in zip(x, y, strict=True))
        plane = np.exp(beta * fit + stats.norm.logpdf(a) + stats.norm.logpdf(b)).sum() * (line[1] - line[0]) ** 2
        assert two_layer_log_evidence(x[:, None], y, 1, 1.0, 1.0, beta) == pytest.approx(np.log(plane), abs=1e-6)


@pytest.mark.exact
def test_regression_is_the_marginal_of_the_labels():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 9)), rng.normal(size=6)  # more weights than data
    known = stats.multivariate_normal(np.zeros(6), 0.7**2 * np.eye(6) + 1.5**2 * x @ x.T).logpdf(y)
    assert regression_log_evidence(x, y, 0.7, 1.5) == pytest.approx(known, abs=1e-10)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_particles": 1}, "num_particles is 1"),
        ({"num_moves": 0}, "num_moves is 0"),
        ({"num_replicates": 1}, "num_replicates is 1"),
        ({"target_ess": 1.0}, "target_ess is 1"),
        ({"inverse_temperature": 0.0}, "inverse_temperature is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(load, settings, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.free_energy(load("product"), **settings)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (-103.0, "-104, 1 nats below: a constant that does not grow with n is left out"),
        (-106.5, "-104, 2.5 nats above: they part, as what it adds to n beta L* is 4"),
        (np.nan, "-104, nan nats below: they part, as what it adds to n beta L* is 4"),
    ],
)
def test_the_asymptotic_form_is_told_apart_where_it_is_no_approximation(evidence, said):
    """N L* = 100, and 4 for the logarithms: half of these and one nat are its own to be off by."""
    found = SimpleNamespace(
        asymptotic_log_evidence=-104.0, log_evidence=with_error(evidence, 0.1), baseline={"value": 0.5}
    )
    assert asymptotic_form(found, 200.0) == said
