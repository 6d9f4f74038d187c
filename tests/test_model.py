"""A program that fulfils the contract is honoured to the letter: its density, losses, predictions and observables."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import log_density, potential_energy
from programs import DATA, regression, slope

import bayes_vs_sgd as bvs


def constrained(x, y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0, 0.5))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    slope = numpyro.sample("slope", dist.Uniform(-2, 3))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(slope * x[:, 0] + weights[0] - weights[2], scale), obs=y)


def scaled(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]), handlers.scale(scale=0.3):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def masked(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]), handlers.mask(mask=x[:, 0] > 0):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def prior_factor(x, y=None):
    w = slope()
    numpyro.factor("barrier", -jnp.sum(w**4))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def example_factor(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.factor("loss", -jnp.abs(y - x @ w))


def two_observations(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)
        numpyro.sample("x", dist.Normal(w, 2).to_event(1), obs=x)


def nested_plates(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0], dim=-2), numpyro.plate("columns", 2, dim=-1):
        numpyro.sample("x", dist.Normal(w, 1), obs=x)


def examples_last(x, y=None):
    w = slope()
    with numpyro.plate("columns", 2, dim=-2), numpyro.plate("examples", x.shape[0], dim=-1):
        numpyro.sample("x", dist.Normal(w[:, None], 1), obs=x.T)


def latent_plate(x, y=None):
    with numpyro.plate("features", 2):
        w = numpyro.sample("w", dist.Laplace(0, 1))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def hierarchical(x, y=None):
    """The support of one latent depends on another: its unconstraining map does too."""
    upper = numpyro.sample("upper", dist.HalfNormal(1.0))
    bounded = numpyro.sample("bounded", dist.Uniform(0, upper))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(bounded * x[:, 0], 1), obs=y)


HONOURED = [
    regression,
    constrained,
    scaled,
    masked,
    prior_factor,
    example_factor,
    two_observations,
    nested_plates,
    examples_last,
    latent_plate,
    hierarchical,
]


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("program", HONOURED, ids=lambda program: program.__name__)
def test_the_density_is_numpyros(program):
    """Log prior - n L = NumPyro's own log density on the unconstrained space, with the Jacobian; so is its gradient."""
    model = bvs.Model(program, DATA)
    posterior = bvs.Posterior(model)
    zeros = {name: jnp.zeros(shape) for name, shape in model.latents}
    flat, unflat = ravel_pytree(zeros)
    position = unflat(jnp.asarray(np.random.default_rng(1).normal(size=flat.size)))

    @jax.jit
    def both(position):
        ours = jax.value_and_grad(posterior.log_density)(position)
        theirs = jax.value_and_grad(lambda p: -potential_energy(program, (), dict(model.data), p))(position)
        return ours, theirs, model.log_prior(position), model.example_losses(position), model.constrain(position)

    ours, theirs, log_prior, losses, values = both(position)
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-11)
    assert losses.shape == (6,)
    np.testing.assert_allclose(log_prior - jnp.sum(losses), ours[0], rtol=1e-12)
    back = model.unconstrain(values)
    for name in back:
        np.testing.assert_allclose(back[name], position[name], rtol=1e-9)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("program", [regression, constrained, two_observations, nested_plates, examples_last, masked])
def test_each_example_has_its_own_loss(program):
    """Example i's loss is what NumPyro makes of row i alone, whichever rows are asked for."""
    model = bvs.Model(program, DATA)
    values = jax.jit(lambda key: model.constrain(model.sample_prior(key)))(jax.random.key(2))
    position = model.unconstrain(values)

    def likelihood(row):
        data = {name: array[row : row + 1] for name, array in model.data.items()}
        whole, trace = log_density(program, (), data, values)
        latents = sum(jnp.sum(trace[name]["fn"].log_prob(trace[name]["value"])) for name, _ in model.latents)
        return whole - latents

    expected = -np.array([likelihood(row) for row in range(6)])
    np.testing.assert_allclose(model.example_losses(position), expected, rtol=1e-10, atol=1e-12)
    rows = jnp.array([4, 1, 1])
    np.testing.assert_allclose(model.example_losses(position, rows), expected[rows], rtol=1e-10, atol=1e-12)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_what_belongs_to_the_prior_is_not_tempered():
    """A factor outside the plate is prior: at inverse temperature 0 it remains, with the localisation."""
    model = bvs.Model(prior_factor, DATA, optimum={"w": np.array([0.5, 0.0])})
    w = jnp.array([0.3, -0.7])
    hot = bvs.Posterior(model, 0.0, localization=2.0).log_density({"w": w})
    prior = jnp.sum(dist.Normal(0, 1).log_prob(w)) - jnp.sum(w**4)
    np.testing.assert_allclose(hot, prior - ((0.3 - 0.5) ** 2 + 0.7**2), rtol=1e-12)
    warm = bvs.Posterior(model, 0.4).log_density({"w": w})
    np.testing.assert_allclose(warm, prior - 0.4 * 6 * model.loss({"w": w}), rtol=1e-12)


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_compressed_data_give_the_same_loss():
    """X = QR: two rows in the place of six, the same L with its constant, the same gradient."""
    q, r = np.linalg.qr(DATA["x"])
    model = bvs.Model(regression, DATA, compressed={"x": r, "y": q.T @ DATA["y"]})
    plain = bvs.Model(regression, DATA)
    position = {"w": jnp.array([1.3, -0.4])}
    np.testing.assert_allclose(model.loss(position), plain.loss(position), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(model.loss)(position)["w"], jax.grad(plain.loss)(position)["w"], rtol=1e-11)
    assert (model.num_rows, model.num_examples) == (2, 6)


@pytest.mark.exact
def test_predictions_are_the_means():
    """Of each observed site, without its observations, at the data's inputs and at others."""

    def two_outputs(x, y=None, u=None):
        w = slope()
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)
            numpyro.sample("u", dist.Normal(2 * x @ w, 1), obs=u)

    model = bvs.Model(two_outputs, DATA | {"u": DATA["y"]})
    found = model.predictions({"w": jnp.array([1.0, 2.0])})
    np.testing.assert_allclose(found["y"], DATA["x"] @ [1.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(found["u"], DATA["x"] @ [2.0, 4.0], rtol=1e-5)
    elsewhere = model.predictions({"w": jnp.array([1.0, 2.0])}, {"x": jnp.array([[0.0, 3.0]])})
    np.testing.assert_allclose(elsewhere["y"], [6.0], rtol=1e-5)


@pytest.mark.exact
def test_observables_speak_the_programs_values():
    """At a constrained site the observable sees the value, the dynamics its logarithm."""
    seen = {"scale": lambda model, values: values["scale"]}
    model = bvs.Model(constrained, DATA, observables=seen)
    start = {"scale": np.array([0.5, 2.0]), "weights": np.full((2, 3), 1 / 3), "slope": np.zeros(2)}
    settings = {"num_chains": 2, "num_steps": 1, "observables": ["scale"], "record_positions": True, "progress": False}
    tree = bvs.simulate(bvs.GradientDescent(1e-30), bvs.Posterior(model), key=0, initial=start, **settings)
    np.testing.assert_allclose(tree["posterior"]["scale"][:, 0], [0.5, 2.0], rtol=1e-5)
    np.testing.assert_allclose(tree["final_position"]["scale"], np.log([0.5, 2.0]), rtol=1e-5)
    np.testing.assert_allclose(tree["posterior"]["weights"][:, 0], 1 / 3, rtol=1e-5)


def location(y):
    mean = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("examples", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1), obs=y)


def no_default(x, y):
    regression(x, y)


@pytest.mark.exact
@pytest.mark.parametrize(("program", "names"), [(location, "y"), (no_default, "xy")])
def test_an_observation_that_cannot_be_left_out_is_passed_on(program, names):
    """A program without inputs takes its number of examples from what it observes."""
    model = bvs.Model(program, data={name: DATA[name] for name in names})
    tree = bvs.simulate(bvs.SGD(0.1, 2), bvs.Posterior(model), key=0, num_steps=3, progress=False)
    assert tree["posterior"]["prediction_seen"].shape == (4, 3, 4, 1)


@pytest.mark.smoke
def test_products_are_of_full_precision_on_every_device_unless_the_user_decides():
    assert jax.config.values["jax_default_matmul_precision"] == "highest"
    program = "import jax, bayes_vs_sgd as bvs; bvs.Model; print(jax.config.values['jax_default_matmul_precision'])"
    chosen = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"}
    done = subprocess.run([sys.executable, "-c", program], env=chosen, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "tensorfloat32"
