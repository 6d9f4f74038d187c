"""A program, data, settings or a posterior that break the contract are refused by name."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from programs import DATA, regression, slope

import bayes_vs_sgd as bvs

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
