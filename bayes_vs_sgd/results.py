"""The tree of results: what every estimate, comparison and plot reads."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz_base
import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from .dynamics.base import Dynamics
from .errors import InputError
from .posterior import Posterior
from .store import Store

_TARGETS: dict[str, Posterior] = {}


@dataclass(frozen=True)
class Draws:
    """Some draws of all chains, on the host: first draw and arrays (chain, draw, ...)."""

    first: int
    arrays: dict[str, np.ndarray]

    @classmethod
    def cut(cls, buffer: dict[str, Array], first: int, last: int) -> "Draws":
        """Take the whole draws out of a segment's buffer."""
        arrays = {k: np.swapaxes(np.asarray(v[: last - first]), 0, 1) for k, v in buffer.items() if k != "lost"}
        return cls(first, arrays)


def describe(dynamics: Dynamics, target: Posterior, settings: dict[str, Any]) -> dict[str, Any]:
    """Manifest of a run: everything that its bits depend on, and what its readers need."""
    model = target.model
    arrays = {"data": model.data, "probes": model.probes, "compressed": model.compressed, "center": target.center}
    content = {
        "model": {
            "program": model.program.digest,
            "path": model.facts.get("path"),
            "config": model.facts.get("config"),
            "data": _digest(arrays),
        },
        "target": {
            "inverse_temperature": target.inverse_temperature.tolist(),
            "localization": float(target.localization),
        },
        "dynamics": {"name": type(dynamics).__name__, "law": dynamics.law} | dynamics.settings,
        "settings": settings,
        "precision": str(target.inverse_temperature.dtype),
        "num_examples": model.num_examples,
        "num_parameters": model.num_parameters,
        "versions": {name: version(name) for name in ("bayes_vs_sgd", "jax", "blackjax", "numpyro", "optax")},
    }
    content = json.loads(json.dumps(content, default=str))
    _TARGETS[_target_key(content)] = target
    return content


def target_of(tree: xr.DataTree) -> Posterior:
    """Return the target a tree's manifest names: the one in memory, or its model file loaded again."""
    manifest = json.loads(tree.attrs["manifest"])
    if found := _TARGETS.get(_target_key(manifest)):
        return found
    if manifest["model"]["path"] is None:
        raise InputError("this run's model was not loaded from a file: give target=Posterior(model, ...)")
    from .load import load_model

    config = dict(manifest["model"]["config"])
    model = load_model(manifest["model"]["path"], **config)
    target = Posterior(model, np.asarray(manifest["target"]["inverse_temperature"]), manifest["target"]["localization"])
    if model.program.digest != manifest["model"]["program"]:
        raise InputError(f"{manifest['model']['path']} has changed since this run: restore it, or give target=")
    return target


def _target_key(manifest: dict[str, Any]) -> str:
    return json.dumps([manifest["model"], manifest["target"]], sort_keys=True)


def tree_of(
    draws: list[Draws], dynamics: Dynamics, target: Posterior, manifest: dict[str, Any], thinning: int
) -> xr.DataTree:
    """ArviZ tree of some draws, with the coordinates ``step`` and ``time`` beside ``draw``."""
    first = draws[0].first
    arrays = {k: np.concatenate([d.arrays[k] for d in draws], axis=1) for k in draws[0].arrays}
    posterior = {k.removeprefix("value:"): v for k, v in arrays.items() if not k.startswith("stat:")}
    stats = {k.removeprefix("stat:"): v for k, v in arrays.items() if k.startswith("stat:")}
    for name in ("diverging", "reached_max_treedepth"):
        if name in stats:
            stats[name] = stats[name] > 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found chain dimension to be longer than draw dimension")
        tree = arviz_base.from_dict({"posterior": posterior, "sample_stats": stats})
    num_draws = next(iter(arrays.values())).shape[1]
    steps = (np.arange(first, first + num_draws) + 1) * thinning
    step_time = np.asarray(dynamics.step_time)
    coordinates: dict[str, Any] = {"draw": np.arange(first, first + num_draws), "step": ("draw", steps)}
    if step_time.ndim == 0:
        coordinates["time"] = ("draw", steps * float(step_time))
    else:
        coordinates["time"] = (("chain", "draw"), step_time[:, None] * steps)
        coordinates["step_time"] = ("chain", step_time)
    for group in ("posterior", "sample_stats"):
        tree[group] = xr.DataTree(tree[group].to_dataset().assign_coords(coordinates))
        tree[group].attrs = {"created_by": "bayes_vs_sgd", "law": dynamics.law}
    tree.attrs["manifest"] = json.dumps(manifest)
    return tree


def assemble(
    store: Store | None,
    draws: list[Draws],
    dynamics: Dynamics,
    target: Posterior,
    manifest: dict[str, Any],
    thinning: int,
    carry: Any,
    step: int,
    stopped: str,
) -> xr.DataTree:
    """Whole tree of a run: its draws (lazy where they are on disk), its final positions, how it stopped."""
    if store is not None and store.segments():
        tree = _joined(store)
    elif draws:
        tree = tree_of(draws, dynamics, target, manifest, thinning)
    else:
        tree = xr.DataTree()
        tree.attrs["manifest"] = json.dumps(manifest)
    position = {k: np.asarray(v) for k, v in carry.states.position.items()}
    final: dict[str, Any] = {
        k: (("chain", *(f"{k}_dim_{i}" for i in range(v.ndim - 1))), v) for k, v in position.items()
    }
    final["lost_at_step"] = ("chain", np.asarray(carry.lost))
    tree["final_position"] = xr.DataTree(xr.Dataset(final, coords={"chain": np.arange(len(final["lost_at_step"][1]))}))
    tree.attrs |= {"stopped": stopped, "num_steps": step, "inference_library": "bayes_vs_sgd"}
    return tree


def open_run(folder: str | Path) -> xr.DataTree:
    """Open what is stored of a run, finished or not; draws are read when they are used."""
    store = Store(folder)
    manifest = store.manifest()
    segments = store.segments()
    if not segments:
        raise InputError(f"{folder} holds no draws yet")
    tree = _joined(store)
    settings = manifest["settings"]
    step, _ = store.state(settings["num_warmup"], settings["thinning"]) or (0, [])
    tree.attrs |= {"num_steps": step, "stopped": "unknown"}
    return tree


def _joined(store: Store) -> xr.DataTree:
    parts = store.read()
    how: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "override"}
    groups = {
        g: xr.concat([p[g].to_dataset() for p in parts], dim="draw", **how) for g in ("posterior", "sample_stats")
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(parts[0].attrs)
    return tree


def final_positions(tree: xr.DataTree) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Final unconstrained positions, and which chains are not lost."""
    data = tree["final_position"].to_dataset()
    kept = data["lost_at_step"].values < 0
    return {str(k): v.values for k, v in data.data_vars.items() if k != "lost_at_step"}, kept


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()[:16]
