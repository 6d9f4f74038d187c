"""Markov chain Monte Carlo on BlackJAX: NUTS and MALA with window adaptation, and any BlackJAX algorithm."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import equinox as eqx
import jax.numpy as jnp
from blackjax.mcmc import hmc, nuts
from jaxtyping import Array

from ..function import Function
from ..model import Position
from ..posterior import Posterior
from .adaptation import AdaptedState, WindowAdapted
from .base import Dynamics, Info


class NUTS(WindowAdapted):
    """No-U-turn sampler (Hoffman and Gelman 2014) with Stan's window adaptation, both by BlackJAX. Exact.

    Each chain tunes its own step size and inverse mass matrix in the warm-up, and keeps them for the draws.

    Parameters
    ----------
    step_size
        The one the warm-up starts from (and the one used, without warm-up).
    target_acceptance_rate
        Wanted mean acceptance of the trajectories.
    max_num_doublings
        A trajectory has at most 2 to this power leapfrog steps.
    dense
        Tune a full inverse mass matrix instead of its diagonal.
    """

    max_num_doublings: int = eqx.field(static=True)

    def __init__(
        self,
        step_size: Any = 0.1,
        target_acceptance_rate: Any = 0.8,
        max_num_doublings: int = 10,
        dense: bool = False,
    ):
        super().__init__(step_size, target_acceptance_rate, dense)
        self.max_num_doublings = max_num_doublings

    def kernel(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[hmc.HMCState, Any]:
        """One trajectory."""
        tuned = (cast(float, state.step_size), state.inverse_mass_matrix)
        return nuts.build_kernel()(key, state.kernel, target.log_density, *tuned, self.max_num_doublings)

    def statistics(self, info: Any) -> Info:
        """Also whether the trajectory was cut."""
        return {"reached_max_treedepth": info.num_trajectory_expansions >= self.max_num_doublings}

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters as plain values."""
        return super().settings | {"max_num_doublings": self.max_num_doublings}


class MALA(WindowAdapted):
    r"""Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996) with window adaptation, by BlackJAX. Exact.

    .. math:: \theta' = \theta + \epsilon M^{-1} \nabla \log p(\theta) + \sqrt{2 \epsilon M^{-1}}\, \xi

    is proposed, with the inverse mass matrix of the warm-up, and accepted by Metropolis and Hastings. Run as Hamiltonian
    Monte Carlo of one leapfrog step of size sqrt(2 epsilon), which is the same (Neal 2011, section 5.2). The acceptance
    rate 0.574 is the best one in many dimensions (Roberts and Rosenthal 1998).

    Parameters
    ----------
    step_size
        epsilon, that the warm-up starts from (and the one used, without warm-up, in units of position squared).
    target_acceptance_rate
        Wanted mean acceptance.
    dense
        Tune a full inverse mass matrix instead of its diagonal.
    """

    def __init__(self, step_size: Any = 0.01, target_acceptance_rate: Any = 0.574, dense: bool = False):
        super().__init__(step_size, target_acceptance_rate, dense)

    def kernel(self, target: Posterior, key: Array, state: AdaptedState) -> tuple[hmc.HMCState, hmc.HMCInfo]:
        """One proposal."""
        leapfrog = cast(float, jnp.sqrt(2 * state.step_size))
        return hmc.build_kernel()(key, state.kernel, target.log_density, leapfrog, state.inverse_mass_matrix, 1)


class BlackJAX(Dynamics):
    """Any BlackJAX sampling algorithm; made by ``from_blackjax``."""

    law: ClassVar = "approximate"
    algorithm: Function = eqx.field(static=True)

    def init(self, target: Posterior, key: Array, position: Position) -> Any:
        """Initialise the algorithm, with a key if it wants one."""
        algorithm = self.algorithm(target.log_density)
        try:
            return algorithm.init(position)
        except TypeError:
            return algorithm.init(position, key)

    def step(self, target: Posterior, key: Array, state: Any) -> tuple[Any, Info]:
        """One step; the scalar fields of BlackJAX's info are kept."""
        state, info = self.algorithm(target.log_density).step(key, state)
        fields = {k: v for k, v in getattr(info, "_asdict", dict)().items() if jnp.ndim(v) == 0 and v is not None}
        fields = {("diverging" if k == "is_divergent" else k): v for k, v in fields.items() if not isinstance(v, tuple)}
        steps = fields.get("num_integration_steps", 1)
        return state, fields | {"num_gradients": jnp.asarray(steps * float(target.model.num_rows))}

    @property
    def settings(self) -> dict[str, Any]:
        """The maker's name and a digest of its code."""
        return {"algorithm": repr(self.algorithm), "digest": self.algorithm.digest}


def from_blackjax(algorithm: Callable) -> BlackJAX:
    """Make a dynamics of a BlackJAX algorithm, as in ``from_blackjax(lambda p: blackjax.mala(p, step_size=1e-3))``.

    The argument is given the target's log density and returns the algorithm. Two equal lambdas compile once.
    """
    return BlackJAX(Function(algorithm))
