"""Our SGLD and devinterp's are one Markov chain, and at tiny steps both sample the Gaussian posterior in closed form.

The package is in the extra ``devinterp``. Without it this file is skipped, and pytest on this file alone then fails
with "no tests": that is how `.ci/run` makes sure of it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from statistical import assert_mean, planted_bug

import bayes_vs_sgd as bvs

devinterp = pytest.importorskip("devinterp.optim", reason="needs the extra devinterp")
torch = pytest.importorskip("torch")

NOISE, PRIOR_SCALE, LOCALIZATION, BETA = 0.7, 1.5, 2.0, 0.5
NUM_CHAINS = 4000


class Regression:
    """Linear regression with three weights: its posterior is normal, and SGLD on it a linear recursion."""

    def __init__(self):
        rng = np.random.default_rng(3)
        left, right = (np.linalg.qr(rng.normal(size=(rows, 3)))[0] for rows in (12, 3))
        self.x = np.sqrt(12) * left * [1.0, 0.8, 1.2] @ right.T
        self.y = self.x @ [1.0, -0.5, 0.3] + NOISE * rng.normal(size=12)
        self.center = np.array([0.9, 0.2, -0.4])

        def program(x, y=None):
            theta = numpyro.sample("theta", dist.Normal(0, PRIOR_SCALE).expand([3]).to_event(1))
            with numpyro.plate("examples", x.shape[0]):
                numpyro.sample("y", dist.Normal(x @ theta, NOISE), obs=y)

        observables = {"theta": lambda model, values: values["theta"]}
        model = bvs.Model(program, {"x": self.x, "y": self.y}, observables=observables)
        self.target = bvs.Posterior(model, BETA, LOCALIZATION, center={"theta": self.center})
        self.data_precision = BETA * self.x.T @ self.x / NOISE**2
        self.precision = self.data_precision + (PRIOR_SCALE**-2 + LOCALIZATION) * np.eye(3)
        self.covariance = np.linalg.inv(self.precision)
        self.mean = self.covariance @ (BETA * self.x.T @ self.y / NOISE**2 + LOCALIZATION * self.center)
        self.softest, *_, self.stiffest = np.linalg.eigvalsh(self.precision)

    def law(self, step_size: float, num_steps: float):
        """Mean and covariance after some steps of our SGLD from the centre."""
        values, vectors = np.linalg.eigh(self.precision)
        shrink = (1 - step_size * values) ** num_steps
        mean = self.mean + vectors @ (shrink * (vectors.T @ (self.center - self.mean)))
        variance = 2 * step_size * (1 - shrink**2) / (1 - (1 - step_size * values) ** 2)
        return mean, (vectors * variance) @ vectors.T

    def scaled_loss(self, theta):
        """The term n beta L of the data, less what no weight changes."""
        return BETA * ((self.y - theta @ self.x.T) ** 2).sum(-1) / (2 * NOISE**2)


@pytest.fixture(scope="module")
def regression():
    return Regression()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and on a busy machine lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Theirs:
    """Independent chains of devinterp's SGLD as the rows of one parameter: the update is entry by entry."""

    def __init__(self, regression: Regression, lr: float, noise_level: float = 1.0, dtype=None):
        self.regression = regression
        start = np.tile(regression.center, (NUM_CHAINS, 1))
        self.theta = torch.nn.Parameter(torch.tensor(start, dtype=dtype or torch.float32))
        self.x, self.y = (torch.tensor(a, dtype=self.theta.dtype) for a in (regression.x, regression.y))
        self.optimizer = devinterp.SGMCMC.sgld(
            [self.theta],
            lr=lr,
            nbeta=12 * BETA,
            localization=LOCALIZATION,
            weight_decay=PRIOR_SCALE**-2,
            noise_level=noise_level,
        )
        self.generator = torch.Generator().manual_seed(4)

    def walk(self, num_steps: int) -> np.ndarray:
        """Positions of all chains after more steps."""
        for _ in range(num_steps):
            self.optimizer.zero_grad()
            residuals = self.y - self.theta @ self.x.T
            (residuals**2).mean(1).div(2 * NOISE**2).sum().backward()
            self.optimizer.step(noise_generator=self.generator)
        return self.theta.detach().numpy().astype(float)


def ours(regression: Regression, step_size: float, num_steps: int, num_draws: int) -> np.ndarray:
    """Draws (chain, draw, 3) of our SGLD from the centre, one each num_steps / num_draws steps."""
    tree = bvs.simulate(
        bvs.SGLD(step_size=step_size),
        regression.target,
        key=5,
        num_chains=NUM_CHAINS,
        num_draws=num_draws,
        num_steps=num_steps,
        initial={"theta": np.tile(regression.center, (NUM_CHAINS, 1))},
        observables=["theta"],
        progress=False,
    )
    return tree["posterior"]["theta"].values


def products(theta, mean):
    """The six different entries of (theta - mean)(theta - mean)'."""
    rows, columns = np.triu_indices(3)
    return (theta - mean)[..., rows] * (theta - mean)[..., columns]


@pytest.mark.exact
@pytest.mark.usefixtures("x64")
def test_drift_is_devinterps_at_twice_the_step():
    """Their step without noise moves by epsilon grad log p where their learning rate is 2 epsilon."""
    regression, step_size = Regression(), 1e-3
    with pytest.warns(UserWarning, match="noise_level"):
        theirs = Theirs(regression, lr=2 * step_size, noise_level=0.0, dtype=torch.float64)
    start = np.random.default_rng(6).normal(size=(NUM_CHAINS, 3))
    theirs.theta.data[:] = torch.tensor(start)
    gradient = eqx.filter_jit(
        jax.vmap(lambda theta: jax.grad(regression.target.log_density)({"theta": theta})["theta"])
    )
    drift = step_size * np.asarray(gradient(jnp.asarray(start)))
    np.testing.assert_allclose(theirs.walk(1) - start, drift, rtol=0, atol=1e-12)


@pytest.mark.law
def test_law_after_some_steps_is_devinterps(regression):
    """Half way to stationarity, mean and covariance over the chains are those of the recursion."""
    step_size, num_steps = 0.05 / regression.stiffest, 12
    mean, covariance = regression.law(step_size, num_steps)
    detects = {"expected": covariance[np.triu_indices(3)], "detects": 0.2 * covariance.max()}
    theirs = Theirs(regression, lr=2 * step_size).walk(num_steps)
    for theta in (ours(regression, step_size, num_steps, 1)[:, -1], theirs):
        assert_mean(theta, expected=mean, detects=0.2 * np.sqrt(covariance.max()))
        assert_mean(products(theta, mean), **detects)
    slow = Theirs(regression, lr=step_size).walk(num_steps)
    with planted_bug():  # their learning rate taken for our step size
        assert_mean(products(slow, mean), **detects)


@pytest.mark.law
def test_at_tiny_steps_both_sample_the_posterior(regression):
    """Position, covariance and n beta L of both are those of the posterior, and of one another."""
    step_size = 0.02 / regression.stiffest
    _, covariance = regression.law(step_size, np.inf)
    np.testing.assert_allclose(covariance, regression.covariance, rtol=0, atol=0.0102 * regression.covariance.max())
    upper = np.triu_indices(3)
    loss = regression.scaled_loss(regression.mean) + 0.5 * np.trace(regression.data_precision @ covariance)
    expected = np.concatenate([regression.mean, covariance[upper], [loss]])
    detects = 0.08 * np.concatenate([np.full(3, np.sqrt(covariance.max())), np.full(6, covariance.max()), [loss]])
    relaxation = int(1 / (step_size * regression.softest))
    num_draws, burn_in = 16, 5  # in relaxation times: exp(-10) is left of the start's covariance

    def summary(theta):
        """Each chain's averages after the burn-in."""
        kept = theta[:, burn_in:]
        loss = regression.scaled_loss(kept)[..., None]
        return np.concatenate([kept, products(kept, regression.mean), loss], axis=-1).mean(axis=1)

    def peer(**settings):
        theirs = Theirs(regression, lr=2 * step_size, **settings)
        return summary(np.stack([theirs.walk(relaxation) for _ in range(num_draws)], axis=1))

    own, theirs = summary(ours(regression, step_size, num_draws * relaxation, num_draws)), peer()
    for found in (own, theirs):
        assert_mean(found, expected=expected, detects=detects)
    error = theirs.std(axis=0, ddof=1) / np.sqrt(NUM_CHAINS)
    own_error = own.std(axis=0, ddof=1) / np.sqrt(NUM_CHAINS)
    assert_mean(own.mean(axis=0), own_error, expected=theirs.mean(axis=0), expected_error=error, detects=1.5 * detects)
    with pytest.warns(UserWarning, match="noise_level"):
        hot = peer(noise_level=2**0.5)
    with planted_bug():  # drift epsilon / 2, noise sqrt(2 epsilon): half of each convention
        assert_mean(hot, expected=expected, detects=2 * detects)
