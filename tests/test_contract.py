"""What a program must be to be a model: refused by name where it is not, and honoured to the letter where it is."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import log_density, potential_energy

import bayes_vs_sgd as bvs

RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(6, 2)), "y": RNG.normal(size=6)}


def slope():
    return numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))


def regression(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


# Programs that are refused


def no_plate(x, y=None):
    numpyro.sample("y", dist.Normal(x @ slope(), 1).to_event(1), obs=y)


def other_plate(x, y=None):
    w = slope()
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def no_observation(x, y=None):
    slope()


def no_latent(x, y=None):
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ jnp.ones(2), 1), obs=y)


def latent_inside(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        noise = numpyro.sample("noise", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(x @ w + noise, 1), obs=y)


def unobserved_output(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1))


def discrete(x, y=None):
    switch = numpyro.sample("switch", dist.Bernoulli(0.5))
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(switch * (x @ w), 1), obs=y)


def subsampled(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0], subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(x[rows] @ w, 1), obs=y[rows])


def subsampled_latents(x, y=None):
    with numpyro.plate("features", 4, subsample_size=2):
        v = numpyro.sample("v", dist.Normal(0, 1))
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ v, 1), obs=y)


def parameter(x, y=None):
    scale = numpyro.param("scale", 1.0)
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, scale), obs=y)


def fixed_size(x, y=None):
    w = slope()
    with numpyro.plate("examples", 6):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)


def wrong_size(x, y=None):
    w = slope()
    with numpyro.plate("examples", 5):
        numpyro.sample("y", dist.Normal(x[:5] @ w, 1), obs=y[:5])


def other_argument(inputs, y=None):
    regression(inputs, y)


REFUSED = {
    no_plate: "observed site 'y' is outside a plate called 'examples'",
    other_plate: "observed site 'y' is outside a plate called 'examples'",
    no_observation: "no observed site in a plate called 'examples': write",
    no_latent: "no latent site: give its parameters priors",
    latent_inside: "latent site 'noise' is inside the plate 'examples'",
    unobserved_output: "latent site 'y' is inside the plate 'examples'",
    discrete: "latent site 'switch' is discrete",
    subsampled: "plate 'examples' has a subsample_size: leave it out|plate 'examples' has size",
    subsampled_latents: "plate 'features' has a subsample_size: leave it out",
    parameter: r"numpyro\.param 'scale': give it a prior",
    fixed_size: r"does not run on (1|7) rows|plate 'examples' has size 6",
    wrong_size: "plate 'examples' has size 5 but the data have 6 rows",
    other_argument: r"program and data do not fit: .*argument.*; data are \['x', 'y'\]",
}


@pytest.mark.exact
@pytest.mark.parametrize("program", REFUSED, ids=lambda program: program.__name__)
def test_refused_programs(program):
    with pytest.raises(bvs.InputError, match=REFUSED[program]):
        bvs.Model(program, DATA)


@pytest.mark.exact
def test_a_type_error_inside_the_program_is_not_blamed_on_the_data():
    def program(x, y=None):
        numpyro.plate("examples", size=x.shape[0], colour="red")

    with pytest.raises(Exception, match="colour") as caught:
        bvs.Model(program, DATA)
    assert "program and data do not fit" not in str(caught.value)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "the model has no data"),
        ({"x": DATA["x"], "y": 1.0}, r"data 'y' has shape \(\)"),
        ({"x": DATA["x"][:0], "y": DATA["y"]}, r"data 'x' has shape \(0, 2\)"),
        ({"x": DATA["x"], "y": DATA["y"][:5]}, "arrays of unequal length {'x': 6, 'y': 5}"),
        ({"x": DATA["x"], "y": np.where(np.arange(6) == 3, np.nan, DATA["y"])}, "'y' is not finite at example 3"),
        (
            {"x": np.where(DATA["x"] == DATA["x"][4, 1], np.inf, DATA["x"]), "y": DATA["y"]},
            "'x' is not finite at example 4",
        ),
    ],
)
def test_refused_data(data, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.Model(regression, data)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimum": {"W": np.zeros(2)}}, "optimum and program differ in site 'W': known: w"),
        ({"optimum": {"w": np.zeros(3)}}, r"optimum 'w' has shape \(3,\), the program's site has \(2,\)"),
        ({"optimum": {"w": [0.0, np.nan]}}, "optimum 'w' is not finite"),
        ({"compressed": {"x": DATA["x"], "y": DATA["y"] + 1}}, "compressed data give another gradient for 'w'"),
        ({"compressed": {"x": DATA["x"][:3], "y": DATA["y"][:3]}}, "compressed data give another gradient for 'w'"),
        (
            {"observables": {str(i): bvs.observable("function", primary=True)(lambda m, v: 0.0) for i in range(5)}},
            "5 primary observables in group 'function'",
        ),
        ({"observables": {"o": bvs.observable("funktion")(lambda m, v: 0.0)}}, "group 'funktion': did you mean"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.Model(regression, DATA, **settings)


@pytest.mark.exact
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inverse_temperature": -1.0}, "inverse_temperature is -1.0: it must be finite and >= 0"),
        ({"inverse_temperature": np.inf}, "inverse_temperature is inf"),
        ({"localization": -1.0}, "localization is -1.0"),
        ({"localization": 1.0}, "localization > 0 needs a center"),
    ],
)
def test_refused_posteriors(settings, message):
    with pytest.raises(bvs.InputError, match=message):
        bvs.Posterior(bvs.Model(regression, DATA), **settings)


# Programs that are honoured


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


# Files

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
