"""Data of six examples and two plain programs on them, for the tests of the contract."""

import numpy as np
import numpyro
import numpyro.distributions as dist

RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(6, 2)), "y": RNG.normal(size=6)}


def slope():
    return numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))


def regression(x, y=None):
    w = slope()
    with numpyro.plate("examples", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)
