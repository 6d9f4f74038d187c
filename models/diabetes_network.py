"""Network with one hidden layer, tanh or ReLU, on a real data set: the 442 patients of scikit-learn's diabetes data.

Ten standardised measurements of a patient, and how far the disease went in a year, standardised. No teacher, no truth and no
closed form: NUTS is the reference. Permutations of the hidden units (and their signs, of tanh) are symmetries: only what they
leave alone is judged, which are predictions.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bayes_vs_sgd as bvs

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
NUM_PATIENTS, NUM_INPUTS = 442, 10


@dataclass(frozen=True)
class Config:
    """Hidden units, their activation, noise and prior."""

    width: int = 2  # hidden units; NUTS, the reference, does not mix with many more
    activation: str = "tanh"  # or "relu"
    num_held_out: int = 100  # patients that nothing is fitted to, >= 2
    noise: float = 0.7  # standard deviation of the observations; about what linear regression leaves
    prior_scale: float = (
        1.0  # standard deviation of the prior of biases and last weights, and sqrt(10) times that of first weights
    )


def build(config: Config, key) -> bvs.Model:
    """Split the patients by lot."""
    check(config)
    activation, shape = ACTIVATIONS[config.activation], (config.width, NUM_INPUTS)

    def program(x, y=None):
        prior = dist.Normal(0, config.prior_scale)
        first = numpyro.sample("W1", dist.Normal(0, config.prior_scale / np.sqrt(NUM_INPUTS)).expand(shape).to_event(2))
        bias = numpyro.sample("b1", prior.expand(shape[:1]).to_event(1))
        last = numpyro.sample("W2", prior.expand(shape[:1]).to_event(1))
        offset = numpyro.sample("b2", prior)
        with numpyro.plate("examples", x.shape[0]):
            numpyro.sample("y", dist.Normal(activation(x @ first.T + bias) @ last + offset, config.noise), obs=y)

    fitted, held_out = patients(config, np.random.default_rng(np.asarray(jax.random.key_data(key))))
    return bvs.Model(
        program,
        data=fitted,
        held_out=held_out,
        probes={"x": np.full((1, NUM_INPUTS), 3.0)},  # a patient far above all means
        observables={
            "first_prediction": bvs.observable("function", primary=True)(first_prediction),
            "held_out_error": bvs.observable("function", primary=True)(held_out_error),
            "size": bvs.observable("geometry")(size),
        },
    )


def patients(config: Config, rng) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Those that are fitted, and the others."""
    try:
        from sklearn.datasets import load_diabetes
    except ImportError as error:
        raise bvs.InputError("the data come with scikit-learn: pip install 'bayes-vs-sgd[data]'") from error
    x, y = load_diabetes(return_X_y=True)
    rows = rng.permutation(len(y))
    fitted, held_out = rows[config.num_held_out :], rows[: config.num_held_out]
    x, y = ((v - v[fitted].mean(axis=0)) / v[fitted].std(axis=0) for v in (x, y))
    return {"x": x[fitted], "y": y[fitted]}, {"x": x[held_out], "y": y[held_out]}


def first_prediction(model, values):
    """Prediction for the first patient."""
    rows = {"x": model.data["x"][:1]}
    return model.predictions(model.unconstrain(values), rows)["y"].ravel()[0]


def held_out_error(model, values):
    """Mean square error on the patients that nothing is fitted to."""
    rows = {"x": model.held_out["x"]}
    return jnp.mean((model.predictions(model.unconstrain(values), rows)["y"].ravel() - model.held_out["y"]) ** 2)


def size(model, values):
    """Sum over the units of the norm of the weights into times the size of that out of it."""
    return jnp.sum(jnp.linalg.norm(values["W1"], axis=1) * jnp.abs(values["W2"]))


def check(config: Config) -> None:
    """Refuse what cannot be."""
    if config.activation not in ACTIVATIONS:
        raise bvs.InputError(f"activation is {config.activation!r}: it must be one of {', '.join(ACTIVATIONS)}")
    if config.width < 1 or min(config.noise, config.prior_scale) <= 0:
        raise bvs.InputError(
            f"width {config.width}, noise {config.noise} and prior_scale {config.prior_scale}: all must be > 0"
        )
    if not 2 <= config.num_held_out <= NUM_PATIENTS - 10:
        raise bvs.InputError(
            f"num_held_out is {config.num_held_out}: it must be between 2 and {NUM_PATIENTS - 10} of {NUM_PATIENTS} patients"
        )
