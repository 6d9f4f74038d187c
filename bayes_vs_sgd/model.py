"""A model: a NumPyro program, its data, and what is known about it.

One trace of the program, at a position and on some rows of the data, gives the log prior and the log
likelihood of each example; loss, predictions and every gradient come from those two. The prior is never
inside the loss L = -(1/n) sum_i log p(y_i | x_i, position).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.distributions import Unit, biject_to

from .errors import InputError
from .function import Function
from .layout import batched_like

if jax.config.values["jax_default_matmul_precision"] is None:
    # GPUs would round the factors of float32 products to 11 bits: ranks and residuals would depend on the machine.
    jax.config.update("jax_default_matmul_precision", "highest")

EXAMPLES = "examples"
Position = dict[str, Array]


@dataclass(frozen=True)
class Truth:
    """A number known about a model, with where it comes from."""

    value: float
    source: str


class Facts(dict):
    """What is said of a model beside its law. Equal to any other, so that it never causes a compilation."""

    def __eq__(self, other):
        return isinstance(other, Facts)

    def __hash__(self):
        return 0


class Model(eqx.Module):
    """A NumPyro program with its data.

    Parameters
    ----------
    program
        NumPyro program; its arguments are the names in ``data``, those that it observes default to None. The
        observed sites stand in ``numpyro.plate("examples", x.shape[0])``.
    data
        Arrays whose leading axis is the examples; None for a model that holds none, see ``compressed``.
    optimum
        Values of the program's sites at a known global minimum of the population loss, or None.
    truth
        Known numbers, such as ``{"learning_coefficient": Truth(4.5, source="...")}``.
    probes
        Inputs (arguments of the program) that the data do not contain; predictions there are "off the data".
    observables
        Functions of (model, values) worth recording; see ``observables.py``.
    properties
        Functions of (model, values) that must not exceed a threshold; see ``robustness/properties.py``.
    exact_sampler
        A dynamics that samples the tempered posterior of this model exactly, checked when it is first used.
    compressed
        Fewer rows with the same loss up to a constant: sum over them of -log p = n L - constant. Checked here. Without
        ``data`` they stand for ``num_examples`` examples that nobody holds, with ``offset`` that constant: whatever uses
        the full batch works, whatever needs single examples is refused.
    held_out
        Further examples, with the names of ``data``, that nothing is fitted to: predictions are scored on them.
    fresh
        Draws examples that nobody has seen: a JAX function (key, number) that returns arrays with the names of ``data``.
        SGD with ``sampling="fresh"`` trains on them.
    densities
        Exact posterior densities of scalar observables, up to a factor: functions of (target, values).
    expected_loss
        The exact E[L] under the tempered posterior where it is known: a function of the target that returns a float, or
        None for what it does not cover. Read it by ``Posterior.expected_loss``, which asks only where it applies.

    Raises
    ------
    InputError
        If the program breaks the contract: no plate, a latent inside the plate, NaN data and so on.
    """

    data: dict[str, Array]
    optimum: dict[str, Array] | None
    probes: dict[str, Array] | None
    exact_sampler: Any
    compressed: dict[str, Array] | None
    held_out: dict[str, Array] | None
    offset: Float[Array, ""]
    program: Function = eqx.field(static=True)
    stands_for: int | None = eqx.field(static=True)
    observables: dict[str, Any] = eqx.field(static=True)
    properties: dict[str, Any] = eqx.field(static=True)
    densities: dict[str, Any] = eqx.field(static=True)
    expected_loss: Function | None = eqx.field(static=True)
    fresh: Function | None = eqx.field(static=True)
    latents: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    facts: Facts = eqx.field(static=True)

    def __init__(
        self,
        program: Callable,
        data: Mapping[str, Any] | None = None,
        optimum: Mapping[str, Any] | None = None,
        truth: Mapping[str, Truth] | None = None,
        probes: Mapping[str, Any] | None = None,
        observables: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        exact_sampler: Any = None,
        compressed: Mapping[str, Any] | None = None,
        held_out: Mapping[str, Any] | None = None,
        densities: Mapping[str, Callable] | None = None,
        expected_loss: Callable | None = None,
        fresh: Callable | None = None,
        facts: Mapping[str, Any] | None = None,
        num_examples: int | None = None,
        offset: float | None = None,
    ):
        from .contract import (
            check_compressed,
            check_data,
            check_fresh,
            check_held_out,
            check_program,
            check_stands_for,
        )
        from .observables import HashableDict, as_observables, available
        from .robustness.properties import as_properties

        self.program = Function(program)
        self.stands_for = check_stands_for(data, compressed, num_examples, offset)
        self.data = check_data(compressed if data is None else data)
        self.optimum = None if optimum is None else {k: jnp.asarray(v, float) for k, v in optimum.items()}
        self.probes = None if probes is None else {k: jnp.asarray(v) for k, v in probes.items()}
        self.observables = as_observables(observables or {})
        self.properties = HashableDict()
        self.densities = HashableDict({k: Function(v) for k, v in (densities or {}).items()})
        self.expected_loss = None if expected_loss is None else Function(expected_loss)
        self.fresh = None if fresh is None else Function(fresh)
        self.exact_sampler = exact_sampler
        self.held_out = None if held_out is None else check_held_out(held_out, self.data)
        self.facts = Facts(facts or {}, truth=dict(truth or {}))
        self.compressed = self.data if data is None else None
        self.offset = jnp.asarray(0.0 if offset is None else offset, float)
        self.latents = check_program(self)
        self.properties = as_properties(properties or {}, available(self))
        check_fresh(self)
        if compressed is not None and data is not None:
            self.compressed = check_data(compressed)
            self.offset = check_compressed(self)

    def at(self, values: Mapping[str, Any], source: str = "given values") -> "Model":
        """Return the model with values of one's own, such as a checkpoint, in the place of the optimum.

        What is known of the optimum is not known of them: the truth is dropped.
        """
        kept = (
            "probes",
            "observables",
            "properties",
            "exact_sampler",
            "compressed",
            "held_out",
            "densities",
            "expected_loss",
            "fresh",
        )
        facts = {k: v for k, v in self.facts.items() if k not in ("truth", "observed", "targets")} | {"center": source}
        parts = {name: getattr(self, name) for name in kept}
        if self.stands_for is not None:
            parts |= {"num_examples": self.stands_for, "offset": self.offset}
        data = self.data if self.holds_examples else None
        return Model(self.program.function, data, optimum=values, facts=facts, **parts)

    @property
    def num_examples(self) -> int:
        """Number of examples n."""
        return next(iter(self.data.values())).shape[0] if self.stands_for is None else self.stands_for

    @property
    def holds_examples(self) -> bool:
        """Whether ``data`` are the examples, and not rows that stand for them."""
        return self.stands_for is None

    def require_examples(self, what: str) -> None:
        """Refuse what needs single examples where the model holds none."""
        if not self.holds_examples:
            raise InputError(
                f"{what} needs single examples, but this model holds only rows that stand for its {self.num_examples}: use "
                "the full batch, or build the model with its data"
            )

    @property
    def num_rows(self) -> int:
        """Rows that one full-batch loss reads: the compressed ones where the model has them."""
        return next(iter((self.compressed or self.data).values())).shape[0]

    @property
    def num_parameters(self) -> int:
        """Size d of a position."""
        return sum(int(np.prod(shape)) for _, shape in self.latents)

    @property
    def truth(self) -> dict[str, Truth]:
        """Known numbers with their sources."""
        return self.facts["truth"]

    def log_prior(self, position: Position) -> Float[Array, ""]:
        """Log prior density of the unconstrained position (with log |det| of the constraining map)."""
        rows = {k: v[:1] for k, v in self.data.items()}
        return self._evaluate(position, rows)[0]

    def example_losses(self, position: Position, rows: Int[Array, " b"] | None = None) -> Float[Array, " b"]:
        """Negative log likelihood of each example, or of the given rows."""
        self.require_examples("the loss of each example")
        if rows is None:
            return -self._evaluate(position, self.data)[1]
        return self.losses_on(position, {k: v[rows] for k, v in self.data.items()})

    def losses_on(self, position: Position, data: Mapping[str, Array]) -> Float[Array, " b"]:
        """Negative log likelihood of each row of data that each chain has of its own, such as a minibatch."""
        widest = max(jax.tree.leaves(position), key=jnp.ndim)
        return -self._evaluate(position, {k: batched_like(v, widest) for k, v in data.items()})[1]

    def loss(self, position: Position) -> Float[Array, ""]:
        """Mean negative log likelihood per example L; on the compressed data where the model has them."""
        return (self.total_loss(position) + self.offset) / self.num_examples

    def held_out_losses(self, position: Position) -> Float[Array, " m"]:
        """Negative log likelihood of each held-out example."""
        assert self.held_out is not None  # asked for only where there are some
        return -self._evaluate(position, self.held_out)[1]

    def total_loss(self, position: Position) -> Float[Array, ""]:
        """Return n L less ``offset``, a constant of the compressed data whose rounding would hide small differences."""
        return -jnp.sum(self._evaluate(position, self.data if self.compressed is None else self.compressed)[1])

    def predictions(self, position: Position, inputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Mean of each observed site at the given inputs (the data's by default)."""
        inputs = self.data if inputs is None else inputs
        observed = self.facts["observed"]
        seeded = handlers.seed(handlers.substitute(self.program, data=self.constrain(position)), jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(**{k: v for k, v in inputs.items() if k not in self.facts["targets"]})
        return {name: trace[name]["fn"].mean for name in observed}

    def constrain(self, position: Position) -> dict[str, Array]:
        """Values of the program's sites at an unconstrained position."""
        rows = {k: v[:1] for k, v in self.data.items()}
        trace, _ = self._trace(position, rows)
        return {name: trace[name]["value"] for name, _ in self.latents}

    @eqx.filter_jit
    def unconstrain(self, values: Mapping[str, Array]) -> Position:
        """Unconstrained position of the program's own values."""
        rows = {k: v[:1] for k, v in self.data.items()}
        program = handlers.seed(handlers.substitute(self.program, data=dict(values)), jax.random.key(0))
        trace = handlers.trace(program).get_trace(**rows)
        return {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name, _ in self.latents}

    def sample_prior(self, key: Array) -> Position:
        """Draw one position from the prior."""
        rows = {k: v[:1] for k, v in self.data.items()}
        trace = handlers.trace(handlers.seed(self.program, key)).get_trace(**rows)
        return {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name, _ in self.latents}

    def _trace(self, position: Position, data: Mapping[str, Array]) -> tuple[dict, Array]:
        """Trace the program at an unconstrained position; also return the sum of log |det| of the constraining maps."""
        log_dets = []

        def substitute(site):
            if site["type"] != "sample" or site["name"] not in position:
                return None
            unconstrained = position[site["name"]]
            transform = biject_to(site["fn"].support)
            value = transform(unconstrained)
            log_dets.append(jnp.sum(transform.log_abs_det_jacobian(unconstrained, value)))
            return value

        program = handlers.substitute(self.program, substitute_fn=substitute)
        trace = handlers.trace(program).get_trace(**data)
        return trace, sum(log_dets, jnp.zeros(()))

    def _evaluate(self, position: Position, data: Mapping[str, Array]) -> tuple[Array, Array]:
        """Log prior and the log likelihood of each row of the data."""
        trace, log_prior = self._trace(position, data)
        num_rows = next(iter(data.values())).shape[0]
        log_likelihoods = jnp.zeros(num_rows)
        for site in trace.values():
            if site["type"] != "sample":
                continue
            log_prob = site["fn"].log_prob(site["value"])
            if site["scale"] is not None:
                log_prob = log_prob * site["scale"]
            plate = examples_plate(site)
            if plate is None:
                log_prior = log_prior + jnp.sum(log_prob)
            else:
                log_prob = jnp.moveaxis(log_prob, plate.dim, 0)
                log_likelihoods = log_likelihoods + jnp.sum(log_prob.reshape(num_rows, -1), axis=1)
        return log_prior, log_likelihoods


def examples_plate(site: dict) -> Any:
    """Return the frame of the plate "examples" a site stands in, or None."""
    return next((frame for frame in site["cond_indep_stack"] if frame.name == EXAMPLES), None)


def is_factor(site: dict) -> bool:
    """Tell a ``numpyro.factor`` from an observation."""
    return isinstance(site["fn"], Unit) or isinstance(getattr(site["fn"], "base_dist", None), Unit)
