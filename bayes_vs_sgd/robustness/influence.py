r"""Which data matter: how the probability of an event changes with the weight of an example, or of a group of examples.

With weight :math:`1 + \epsilon` on example i of loss :math:`\ell_i` the tempered posterior is
:math:`p_\epsilon \propto p\, e^{-\epsilon \beta \ell_i}`, so that

.. math:: \frac{dP}{d\epsilon} = -\beta\, \mathrm{Cov}(\ell_i, 1\{g > c\}) = -\beta P (E[\ell_i \mid g > c] - E[\ell_i]), \qquad
   P(\epsilon) = \frac{E[e^{-\epsilon \beta \ell_i}\, 1\{g > c\}]}{E[e^{-\epsilon \beta \ell_i}]}

where :math:`\epsilon = 0` (Kreer et al., arXiv:2509.26544), and at any. An example that is not in the data has weight
:math:`\epsilon`; a group's loss is the sum of its examples'. Both are read off weighted draws (``methods.Part``): where the
event is rare, tilted particles stand for the unsafe ones, so that a rare event's derivative is as precise as its probability.
Errors are by the jackknife over independent parts: chains, or replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..contract import check_alike
from ..diagnostics import pareto_k
from ..errors import InputError
from ..estimate import Estimate, jackknife, rank_correlation
from ..load import read_arrays
from ..model import Model
from ..posterior import Posterior
from .methods import Part

KINDS = ("example", "group", "candidate")
NUM_CURVES = 5
"""Most influential examples, groups and candidates, of each, that are re-weighted."""
WEIGHTS = np.geomspace(1e-3, 1.0, 13)
"""Changes of a weight that a curve has; of what is in the data, minus these too: -1 leaves it out."""
TOLERANCE = 0.2
"""Share of the change of P that linear response may be wrong by."""
LARGEST_K = 0.7
"""Pareto shape above which importance weights are not believed (Vehtari et al., JMLR 25 (2024) 72)."""
MOST_LOSSES = 4 * 10**7
"""Losses of examples that are held at once; of more, draws are left out evenly."""


@dataclass(frozen=True)
class Reweighting:
    """P(epsilon) by importance weights, beside its linear response.

    ``pareto_k`` is the larger of that of the unsafe draws' weights and of the others'; NaN where there are too few of either.
    Between the two numbers of ``linear_within`` linear response is wrong by at most 20 % of the change, and k is at most 0.7.
    """

    weights: list[float]
    probabilities: list[float]
    standard_errors: list[float]
    linear_response: list[float]
    pareto_k: list[float]
    linear_within: tuple[float, float]


@dataclass(frozen=True)
class Influence:
    """Derivative of P(g > c), and of its logarithm, by the weight of an example.

    Parameters
    ----------
    example
        Row of the data, label of the group, or row of the candidates.
    kind
        ``"example"``, ``"group"`` or ``"candidate"``, which is not in the data.
    derivative, standard_error, log_derivative
        dP/d epsilon, its jackknife error, and d log P/d epsilon.
    reweighting
        The curve of P, of the most influential ones.
    retrained
        Change of the probability of SGD where it is trained again without the example.
    """

    example: int | str
    kind: str
    derivative: float
    standard_error: float
    log_derivative: float
    reweighting: Reweighting | None = None
    retrained: Estimate | None = None


class Units(NamedTuple):
    """What is given weight: all examples, groups of them (rows of each), and examples that are not in the data."""

    model: Model
    groups: dict[str, np.ndarray]
    candidates: dict[str, Array]

    @property
    def names(self) -> list[tuple[str, int | str]]:
        """Kind and name of each."""
        further = len(next(iter(self.candidates.values()))) if self.candidates else 0
        rows = {"example": range(self.model.num_examples), "group": self.groups, "candidate": range(further)}
        return [(kind, name) for kind, names in rows.items() for name in names]

    def losses(self, target: Posterior, vectors: np.ndarray) -> Float[np.ndarray, "s u"]:
        """Loss of each at each position."""
        found = np.asarray(_losses(target, jnp.asarray(vectors, float), self.candidates), float)
        own, further = np.split(found, [self.model.num_examples], axis=1)
        return np.concatenate([own, *(own[:, rows].sum(1, keepdims=True) for rows in self.groups.values()), further], 1)


def units(model: Model, groups: Path | None = None, candidates: Path | None = None) -> Units:
    """Read the files that name groups (a label a line, one for each example) and candidates (.npz, named as the data).

    Raises
    ------
    InputError
        If the model holds no examples, or a file does not fit them.
    """
    model.require_examples("influence")
    rows: dict[str, np.ndarray] = {}
    if groups is not None:
        if not groups.is_file():
            raise InputError(f"--groups {groups}: there is no such file")
        labels = np.array(groups.read_text(errors="replace").splitlines(), str)
        if len(labels) != model.num_examples:
            raise InputError(
                f"--groups {groups} has {len(labels)} labels for {model.num_examples} examples: one a line"
            )
        labels = np.char.strip(labels)
        rows = {str(label): np.flatnonzero(labels == label) for label in np.unique(labels) if label}
    further = (
        {} if candidates is None else check_alike(read_arrays(candidates, "--candidates"), model.data, "candidates")
    )
    return Units(model, rows, further)


def influences(target: Posterior, given: Units, parts: Sequence[Part]) -> list[Influence]:
    """Influence of each unit, of each kind the largest first; none where nothing is unsafe."""
    if not any(part.unsafe.any() for part in parts):
        return []
    names = given.names
    parts = [part.thinned(max(MOST_LOSSES // len(names) // len(parts), 1)) for part in parts]
    ends = np.cumsum([len(part.weights) for part in parts])[:-1]
    losses = given.losses(target, np.concatenate([part.vectors for part in parts]))
    weights, unsafe = (np.concatenate([getattr(part, name) for part in parts]) for name in ("weights", "unsafe"))
    losses -= weights @ losses / len(parts)
    beta = float(target.inverse_temperature)

    def by_part(columns: np.ndarray) -> np.ndarray:
        return np.stack([part.weights @ c for part, c in zip(parts, np.split(columns, ends), strict=True)])

    def covariance(loss, probability, both):
        return -beta * (both - probability * loss)

    probability = by_part(unsafe[:, None])
    sums = (by_part(losses), probability, by_part(losses * unsafe[:, None]))
    slopes, errors = jackknife(covariance, *sums)
    here = float(probability.mean())

    def curve(unit: int) -> Reweighting:
        steps = WEIGHTS if names[unit][0] == "candidate" else np.concatenate([-WEIGHTS[::-1], WEIGHTS])
        powers = -beta * losses[:, unit, None] * steps
        tilted = np.exp(powers - powers.max(axis=0))
        values, spread = jackknife(np.divide, by_part(tilted * unsafe[:, None]), by_part(tilted))
        shapes = np.maximum(*(pareto_k(powers[side] + np.log(weights[side, None])) for side in (unsafe, ~unsafe)))
        linear = here + steps * slopes[unit]
        holds = (np.abs(linear - values) <= TOLERANCE * np.abs(values - here)) & (shapes <= LARGEST_K)
        within = (0.0 - reach(-steps, holds), reach(steps, holds))
        return Reweighting(*(part.tolist() for part in (steps, values, spread, linear, shapes)), linear_within=within)

    found: list[Influence] = []
    for kind in KINDS:
        ranked = sorted((u for u, name in enumerate(names) if name[0] == kind), key=lambda u: -abs(slopes[u]))
        for rank, u in enumerate(ranked):
            values = (float(slopes[u]), float(errors[u]), float(slopes[u] / here))
            found.append(Influence(names[u][1], kind, *values, curve(u) if rank < NUM_CURVES else None))
    return found


def agreement(found: Sequence[Influence]) -> Estimate | None:
    """Rank correlation of what linear response says of leaving examples out, -dP/d epsilon, with what retraining changes.

    Over the examples that were left out. The errors of both sides make it smaller than it is.
    """
    both = [(-one.derivative, one.retrained.value) for one in found if one.retrained is not None]
    return rank_correlation(*zip(*both, strict=True)) if both else None


def reach(steps: np.ndarray, holds: np.ndarray) -> float:
    """Largest of the positive steps up to which all hold; 0 if there is none."""
    order = np.argsort(steps)[np.sort(steps) > 0]
    return float(np.append(0.0, steps[order])[np.logical_and.accumulate(holds[order]).sum()])


@eqx.filter_jit
def _losses(target: Posterior, vectors: Array, candidates: dict[str, Array]) -> Array:
    def losses(vector):
        position = target.unflat(vector)
        own = target.model.example_losses(position)
        return jnp.append(own, target.model.losses_on(position, candidates)) if candidates else own

    return jax.lax.map(losses, vectors, batch_size=64)
