"""Trajectories made elsewhere, as a tree that every estimate and comparison reads."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .dynamics.base import Dynamics
from .errors import InputError
from .manifest import describe, digest
from .observables import select
from .posterior import Posterior
from .results import Record
from .segment import Carry
from .start import value_shapes


class Given(Dynamics):
    """Stands for what made the trajectories: it cannot be run, and its law is not known."""

    law: ClassVar = "none"
    name: str = eqx.field(static=True, default="given")

    @property
    def settings(self) -> dict[str, Any]:
        """What it was called."""
        return {"source": self.name}


class _Place(eqx.Module):
    position: dict[str, Array]


def from_positions(
    positions: Mapping[str, Any] | xr.DataTree | xr.Dataset,
    target: Posterior,
    name: "str | Given" = "given",
    observables: list[str] | None = None,
) -> xr.DataTree:
    """Make a tree, as ``simulate`` returns it, of positions that something else has visited.

    Parameters
    ----------
    positions
        The program's own values, one array (chain, draw, ...) a site; or a tree or dataset of them, such as
        ``xarray.open_datatree("draws.nc")``. Chains are independent; one draw each is an ensemble at one time.
    target
        Model on which observables are evaluated.
    name
        What to call their origin, or what stands for it.
    observables
        As for ``simulate``.

    Raises
    ------
    InputError
        If names or shapes are not those of the program.
    """
    source = Given(name) if isinstance(name, str) else name
    values = site_values(positions, target)
    chosen = select(target.model, observables)
    arrays, unconstrained = _evaluate(target, chosen, values)
    drawn = {k: np.asarray(v) for k, v in arrays.items()} | {f"value:{k}": np.asarray(v) for k, v in values.items()}
    final = {k: v[:, -1] for k, v in unconstrained.items()}
    seen = [np.asarray(v) for v in (*values.values(), *unconstrained.values(), *arrays.values())]
    finite = np.all([np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in seen], axis=0)
    num_chains, num_draws = next(iter(values.values())).shape[:2]
    settings = {"num_warmup": 0, "thinning": 1, "num_chains": num_chains, "seed": None, "initial": "given"}
    settings |= {
        "initial_scale": 1.0,
        "observables": sorted(chosen),
        "record_positions": True,
        "positions": digest(values),
    }
    drawn["stat:num_gradients"] = np.zeros((num_chains, num_draws))
    record = Record(source, describe(source, target, settings), parts=[(0, drawn)])
    lost = jnp.where(jnp.asarray(finite), -1, num_draws)
    return record.finish(Carry(_Place(final), {}, lost), num_draws, "finished", None)


def site_values(positions: Mapping[str, Any] | xr.DataTree | xr.Dataset, target: Posterior) -> dict[str, Array]:
    """Return the arrays (chain, draw, ...) of the program's sites; refuse other names or shapes."""
    if isinstance(positions, xr.DataTree):
        positions = positions["posterior"].to_dataset() if "posterior" in positions else positions.to_dataset()
    shapes = value_shapes(target)
    if missing := shapes.keys() - set(positions):
        raise InputError(
            f"positions lack {sorted(missing)}: give an array (chain, draw, ...) for each site of the program"
        )
    if isinstance(positions, xr.Dataset):
        for site in shapes:
            if not {"chain", "draw"} <= set(positions[site].dims):
                raise InputError(
                    f"positions of {site!r} have dimensions {positions[site].dims}: chain and draw are needed"
                )
        positions = {site: positions[site].transpose("chain", "draw", ...) for site in shapes}
    values = {site: jnp.asarray(np.asarray(positions[site]), float) for site in shapes}
    leading = {v.shape[:2] for v in values.values()}
    for site, shape in shapes.items():
        if values[site].shape[2:] != shape or len(leading) > 1:
            raise InputError(
                f"positions of {site!r} have shape {values[site].shape}: the program's site is (chain, draw, "
                f"{', '.join(map(str, shape))}), with the same chains and draws for all sites"
            )
    return values


def read_positions(path: str | Path) -> xr.DataTree:
    """Open trajectories that another program wrote: NetCDF with an array (chain, draw, ...) a site."""
    if not Path(path).is_file():
        raise InputError(f"no trajectories at {path}: there is no such file")
    with contextlib.suppress(Exception):  # engines differ in what they raise
        return xr.open_datatree(path)
    with contextlib.suppress(Exception):  # older NetCDF has no groups
        return xr.DataTree(xr.open_dataset(path))
    raise InputError(
        f"{path} holds no trajectories: give a NetCDF file with an array (chain, draw, ...) a site of the program"
    )


@eqx.filter_jit
def _evaluate(
    target: Posterior, observables: Any, values: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Observables and unconstrained positions, (chain, draw, ...)."""

    def one(value):
        return {k: item(target.model, value) for k, item in observables.items()}, target.model.unconstrain(value)

    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)
    found = jax.lax.map(one, flat, batch_size=256)
    leading = next(iter(values.values())).shape[:2]
    return jax.tree.map(lambda v: v.reshape(*leading, *v.shape[1:]), found)
