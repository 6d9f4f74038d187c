"""The tree of results: what every estimate, comparison and plot reads."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arviz_base
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from .dynamics.base import Dynamics
from .errors import InputError
from .store import Store

Arrays = dict[str, np.ndarray]


@dataclass
class Record:
    """What a run leaves behind: draws in memory or in a store, and the state to go on from."""

    dynamics: Dynamics
    manifest: dict[str, Any]
    store: Store | None = None
    parts: list[tuple[int, Arrays]] = field(default_factory=list)
    changed: bool = False

    def draws_by(self, step: int) -> int:
        """Draws recorded up to a step."""
        settings = self.manifest["settings"]
        return max(step - settings["num_warmup"], 0) // settings["thinning"]

    def resume(self, carry: Any) -> tuple[int, Any]:
        """Last stored step and its state; step 0 and the given state where nothing is stored."""
        if self.store is None or (found := self.store.state(self.draws_by)) is None:
            return 0, carry
        step, leaves = found
        return step, jax.tree.unflatten(jax.tree.structure(carry), [jnp.asarray(leaf) for leaf in leaves])

    def keep(self, begin: int, end: int, carry: Any, buffer: dict[str, Array]) -> None:
        """Keep the draws of a segment, out of its buffer (slot, chain, ...), and the state after it."""
        first, last = self.draws_by(begin), self.draws_by(end)
        arrays = (
            {k: np.swapaxes(np.asarray(v)[: last - first], 0, 1) for k, v in buffer.items()} if last > first else {}
        )
        self.changed = True
        if self.store is not None:
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]
            self.store.save(end, leaves, first, last, self._tree(first, arrays) if arrays else None)
        elif arrays:
            self.parts.append((first, arrays))

    def finish(self, carry: Any, step: int, stopped: str, speed: float | None) -> xr.DataTree:
        """Whole tree of the run: draws (read when they are used, where they are stored), final positions, how it stopped."""
        if self.store is not None and self.store.segments():
            tree = self.store.read()
            if not self.changed and "final_position" in tree:
                tree.attrs |= {"stopped": stopped}
                return tree
        elif self.parts:
            arrays = {k: np.concatenate([part[k] for _, part in self.parts], axis=1) for k in self.parts[0][1]}
            tree = self._tree(0, arrays)
        else:
            tree = xr.DataTree()
        final: dict[str, Any] = {
            k: (("chain", *(f"{k}_dim_{i}" for i in range(v.ndim - 1))), np.asarray(v))
            for k, v in carry.states.position.items()
        }
        lost = np.asarray(carry.lost)
        tree["final_position"] = xr.DataTree(
            xr.Dataset(final | {"lost_at_step": ("chain", lost)}, coords={"chain": np.arange(len(lost))})
        )
        tree.attrs |= {"manifest": json.dumps(self.manifest), "inference_library": "bayes_vs_sgd"}
        tree.attrs |= {"stopped": stopped, "num_steps": step}
        if self.store is not None and "posterior" in tree:
            tree = self.store.merge(tree)
        tree.attrs |= {} if speed is None else {"steps_per_second": speed}
        return tree

    def _tree(self, first: int, arrays: Arrays) -> xr.DataTree:
        """ArviZ tree of some draws, with the coordinates ``step`` and ``time`` beside ``draw``."""
        posterior = {k.removeprefix("value:"): v for k, v in arrays.items() if not k.startswith("stat:")}
        stats = {k.removeprefix("stat:"): v for k, v in arrays.items() if k.startswith("stat:")}
        for name in ("diverging", "reached_max_treedepth"):
            if name in stats:
                stats[name] = stats[name] > 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found chain dimension to be longer than draw dimension")
            tree = arviz_base.from_dict({"posterior": posterior, "sample_stats": stats})
        draws = np.arange(first, first + next(iter(arrays.values())).shape[1])
        steps = (draws + 1) * self.manifest["settings"]["thinning"]
        step_time = np.asarray(self.dynamics.step_time)
        coordinates: dict[str, Any] = {"draw": draws, "step": ("draw", steps)}
        if step_time.ndim == 0:
            coordinates["time"] = ("draw", steps * float(step_time))
        else:
            coordinates["time"] = (("chain", "draw"), step_time[:, None] * steps)
            coordinates["step_time"] = ("chain", step_time)
        for group in ("posterior", "sample_stats"):
            tree[group] = xr.DataTree(tree[group].to_dataset().assign_coords(coordinates))
            tree[group].attrs = {"created_by": "bayes_vs_sgd", "law": self.dynamics.law}
        tree.attrs["manifest"] = json.dumps(self.manifest)
        return tree


def open_run(folder: str | Path) -> xr.DataTree:
    """Open what is stored of a run. Its draws are read when they are used; those of an unfinished run at once."""
    store = Store(folder)
    store.manifest()
    if not (segments := store.segments()):
        raise InputError(f"{folder} holds no draws yet")
    tree = store.read() if len(segments) == 1 else store.read().load()
    tree.attrs = {"stopped": "unknown"} | tree.attrs
    return tree


def final_positions(tree: xr.DataTree) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Final unconstrained positions, and which chains are not lost."""
    data = tree["final_position"].to_dataset()
    kept = data["lost_at_step"].values < 0
    return {str(k): v.values for k, v in data.data_vars.items() if k != "lost_at_step"}, kept


def whole(tree: xr.DataTree) -> xr.DataTree:
    """Pass on Ctrl-C: an interrupted run is kept, and nothing is concluded from it."""
    if tree.attrs["stopped"] == "interrupted":
        raise KeyboardInterrupt
    return tree
