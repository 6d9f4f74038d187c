"""When SGD is Langevin dynamics: its stationary law on a quadratic, beside those of its equations and of the posterior."""

import jax
import numpy as np
import optax

from ..dynamics import SGD, Dynamics, GaussianNoise, Optimizer, StochasticGradientFlow
from ..theory.quadratic import continuous_covariance, stationary_covariance
from .chains import stationary
from .claim import Reading, claim, mean, ratio
from .programs import quadratic

CURVED = np.array([[4.0, 0.3], [0.3, 1.0]])
HESSIAN, NOISE = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.6], [-0.6, 2.0]])


def second_moments(draws: np.ndarray) -> np.ndarray:
    """Mean of theta theta' along each chain (chain, d, d)."""
    return np.einsum("cti,ctj->cij", draws, draws) / draws.shape[1]


def random_matrix(rng: np.random.Generator, size: int = 2) -> np.ndarray:
    """Symmetric, positive definite, with eigenvalues between 1/2 and 2."""
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return basis * rng.uniform(0.5, 2.0, size) @ basis.T


@claim(
    "C1",
    "On a quadratic with constant noise the stationary covariance of SGD solves HS + SH - eta HSH = (eta/B) C",
    "Liu, Ziyin and Ueda, ICML 2021",
)
def covariance_of_sgd(seed: int) -> list[Reading]:
    """The mistakes are the SDE's covariance, which is 38 % low at eta = .5, and that of noise sqrt(2 eta) at eta = .1."""
    rng = np.random.default_rng([seed, 1])
    cases = [(0.1, 1, HESSIAN, NOISE), (0.5, 1, HESSIAN, NOISE), (0.4, 3, random_matrix(rng), random_matrix(rng))]
    readings = []
    for eta, batch, hessian, noise in cases:
        found = second_moments(stationary(SGD(eta, batch), quadratic(hessian, noise), seed))
        exact = stationary_covariance(hessian, noise, eta, batch)
        equation = continuous_covariance(hessian, noise, eta, batch)
        wrong = 2 * exact if eta < 0.2 else equation
        readings += entries(f"at eta {eta}, B {batch}", exact, found, wrong)
    return readings


def entries(where: str, exact: np.ndarray, found: np.ndarray, wrong: np.ndarray) -> list[Reading]:
    """Readings of a covariance (2, 2) by second moments (chain, 2, 2); the mistake where it is a tenth of the spread away."""
    readings = []
    for i, j in ((0, 0), (0, 1), (1, 1)):
        far = abs(wrong[i, j] - exact[i, j]) > 0.1 * np.sqrt(exact[i, i] * exact[j, j])
        mistake = wrong[i, j] if far else np.nan
        readings.append(mean(f"S[{i},{j}] {where}", exact[i, j], found[:, i, j], mistake=mistake))
    return readings


@claim(
    "C2",
    "With heavy-ball momentum mu, (1 - mu) (HS + SH) - (1 + mu^2) / (1 - mu^2) eta HSH + mu / (1 - mu^2) eta (HHS + SHH) = "
    "(eta/B) C; where H and C commute, S H (2 - eta H / (1 + mu)) = eta C / (B (1 - mu))",
    "derived: Lyapunov equation of position and momentum",
)
def covariance_with_momentum(seed: int) -> list[Reading]:
    """The mistake is plain SGD at the learning rate eta / (1 - mu), as if momentum did nothing else.

    In two dimensions, where H and C do not commute, it is the equation that they would obey if they did, in its symmetric form
    HS + SH - eta HSH / (1 + mu) = eta C / (B (1 - mu)).
    """
    readings = []
    for eta, mu, curvature in ((0.1, 0.9, 1.0), (0.5, 0.9, 1.0), (1.0, 0.5, 1.0), (0.3, 0.7, 2.0)):
        model = quadratic(np.array([[curvature]]), np.eye(1))
        found = second_moments(stationary(SGD(eta, 1, momentum=mu), model, seed, 16))[:, 0, 0]
        exact = stationary_covariance(curvature, 1.0, eta, momentum=mu)[0, 0]
        rate = eta / (1 - mu)
        plain = stationary_covariance(curvature, 1.0, rate)[0, 0] if rate * curvature < 2 else np.inf
        readings.append(mean(f"variance at eta {eta}, mu {mu}, h {curvature}", exact, found, mistake=plain))
    eta, mu, batch = 0.4, 0.8, 2
    found = second_moments(stationary(SGD(eta, batch, momentum=mu), quadratic(CURVED, NOISE), seed, 16))
    exact = stationary_covariance(CURVED, NOISE, eta, batch, mu)
    wrong = stationary_covariance(CURVED, NOISE, eta / (1 + mu), batch * (1 - mu) / (1 + mu))
    return readings + entries(f"at eta {eta}, mu {mu}, B {batch}", exact, found, wrong)


@claim(
    "C3",
    "At h = c = 1 and eta = .5 SGD has variance 1/3, its SDE 1/4, and the second-order modified equation 1/5: no nearer; the "
    "equation with all of SGD's law has the drift log(1 - eta h) / eta, and variance 1/3 too",
    "Lyapunov equations; modified equation after Li, Tai and E 2017",
)
def variance_of_equations(seed: int) -> list[Reading]:
    """Each measured variance must not be the next one; sub-steps of eta/16 make Euler's 1/(1 - k eta/32) of it, k the drift.

    The exact equation is the flow of a quadratic of curvature -log(1 - eta h) / eta, with the noise that gives SGD's variance. Of
    SGD and of it the correlation of successive steps is measured too: not exp(-eta h) as of the SDE.
    """
    one, readings = np.eye(1), []
    for eta in (0.5, 0.3):
        exact, first = stationary_covariance(1, 1, eta)[0, 0], eta / 2
        second = eta / 2 / (1 + eta / 2)
        model = quadratic(one, one, 4)
        cases: list[tuple[str, Dynamics, float, float, float]] = [("SGD", SGD(eta, 1), exact, 1.0, first)]
        flows = ((1, first, 1.0, second), (2, second, 1 + eta / 2, first))
        for order, value, drift, wrong in flows:
            flow = StochasticGradientFlow(eta, GaussianNoise(1), substeps=16, order=order)
            cases.append((f"equation of order {order}", flow, value, 1 / (1 - drift * eta / 32), wrong))
        for name, dynamics, value, bias, wrong in cases:
            found = second_moments(stationary(dynamics, model, seed, 4, 40))[:, 0, 0] / bias
            readings.append(mean(f"{name} at eta {eta}", value, found, mistake=wrong))
        drift = -np.log(1 - eta) / eta
        same = quadratic(drift * one, 2 * drift * exact / eta * one, 4)
        x = stationary(StochasticGradientFlow(eta, GaussianNoise(1), substeps=16), same, seed, 1, 40)
        found = second_moments(x)[:, 0, 0] * (1 - drift * eta / 32)
        readings.append(mean(f"exact equation at eta {eta}", exact, found, mistake=first))
        euler = (1 - drift * eta / 16) ** 16 / (1 - eta)
        paths = (("SGD", stationary(SGD(eta, 1), model, seed, 1), 1.0), ("the exact equation", x, euler))
        for name, path, bias in paths:
            now, after = path[:, :-1, 0], path[:, 1:, 0]
            sums = (np.sum(now * after, axis=1) / bias, np.sum(now**2, axis=1))
            readings.append(ratio(f"correlation of steps of {name} at eta {eta}", 1 - eta, *sums, mistake=np.exp(-eta)))
    return readings


@claim(
    "C4",
    "SGD samples a tempered posterior only if C is a multiple of I; preconditioned by P, only if PCP is one of P",
    "Mandt, Hoffman and Blei, JMLR 18 (2017)",
)
def shape_of_the_law(seed: int) -> list[Reading]:
    """Log ratio of the variances along two eigenvectors: the posterior has log h1/h2, SGD with C = H about 0.

    With P = C^{-1} the law is the posterior's again. Predictions are exact at this learning rate; the mistake is the other law.
    The divergence is that from the nearest tempered posterior, of T = tr(HS) / d: (d log(tr(HS) / d) - log det(HS)) / 2.
    """
    readings = []
    for first, second in ((2.0, 0.5), (1.5, 1.0 / 3)):
        hessian = np.diag([first, second])
        wide = np.log(second / first)  # of the posterior's variances
        eta, batch = 0.05, 2
        plain = np.log((2 - eta * second) / (2 - eta * first))
        cases = [
            ("C = H", hessian, SGD(eta, batch), plain, wide),
            ("C = I", np.eye(2), SGD(eta, batch), wide + plain, 0.0),
            ("C = H, P = 1/C", hessian, natural(eta, batch, hessian), wide, 0.0),
        ]
        for name, noise, dynamics, predicted, wrong in cases:
            squares = np.einsum("cii->ci", second_moments(stationary(dynamics, quadratic(hessian, noise), seed)))
            value, error = log_ratio(squares)
            where = f"{name}, h = {first:.3g}, {second:.3g}"
            readings.append(Reading(where, predicted, value, error, mistake=wrong))
            if name == "C = H":
                exact = np.diag(stationary_covariance(hessian, noise, eta, batch)) * np.diag(hessian)
                found = divergence(squares * np.diag(hessian))
                readings.append(Reading(f"divergence, {where}", divergence(exact[None])[0], *found, mistake=0.0))
    return readings


def divergence(energies: np.ndarray) -> tuple[float, float]:
    """KL of a normal law from the nearest tempered posterior, by draws (s, d) of h_i theta_i^2, and its standard error."""
    means = energies.mean(axis=0)
    value = (means.size * np.log(means.mean()) - np.sum(np.log(means))) / 2
    influence = np.sum(energies / means.mean() - energies / means, axis=1) / 2
    error = influence.std(ddof=1) / np.sqrt(len(influence)) if len(influence) > 1 else 0.0
    return float(value), float(error)


def log_ratio(squares: np.ndarray) -> tuple[float, float]:
    """Log ratio of the means of two columns, with its standard error by the delta method."""
    means = squares.mean(axis=0)
    influence = squares[:, 0] / means[0] - squares[:, 1] / means[1]
    return float(np.log(means[0] / means[1])), float(influence.std(ddof=1) / np.sqrt(len(squares)))


def natural(learning_rate: float, batch_size: int, noise: np.ndarray) -> Optimizer:
    """SGD preconditioned by the inverse of the gradient's covariance, at the trace of plain SGD."""
    inverse = np.linalg.inv(noise)

    def factory(learning_rate):
        return optax.stateless(lambda gradient, _: jax.tree.map(lambda g: -learning_rate * (inverse @ g), gradient))

    return Optimizer(factory, batch_size, learning_rate=np.asarray(learning_rate))
