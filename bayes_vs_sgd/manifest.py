"""What a run is: everything that its bits depend on, and the target that its readers need."""

import hashlib
import json
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import xarray as xr

from .dynamics.base import Dynamics
from .errors import InputError
from .posterior import Posterior

_TARGETS: dict[str, Posterior] = {}


def describe(dynamics: Dynamics, target: Posterior, settings: dict[str, Any]) -> dict[str, Any]:
    """Manifest of a run; its target is remembered for ``target_of``."""
    model = target.model
    arrays = {name: getattr(model, name) for name in ("data", "probes", "compressed", "held_out")}
    arrays["center"] = target.center
    arrays["offset"] = None if model.holds_examples else model.offset
    content = {
        "model": {
            "program": model.program.digest,
            "path": model.facts.get("path"),
            "config": model.facts.get("config"),
            "data": digest(arrays),
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
    path = manifest["model"]["path"]
    if path is None:
        raise InputError("this run's model was not loaded from a file: give target=Posterior(model, ...)")
    from .load import load_model

    model = load_model(path, **manifest["model"]["config"])
    target = Posterior(model, np.asarray(manifest["target"]["inverse_temperature"]), manifest["target"]["localization"])
    made = describe(Dynamics(), target, {})["model"]
    if made["program"] != manifest["model"]["program"]:
        raise InputError(f"{path} has changed since this run: restore it, or give target=")
    if made["data"] != manifest["model"]["data"]:
        raise InputError(
            f"this run's data, probes or center are not those that {path} makes now: give target=Posterior(model, ...)"
        )
    return target


def digest(tree: Any) -> str:
    """Short digest of the arrays of a pytree, with their names."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode() + array.tobytes())
    return found.hexdigest()[:16]


def _target_key(manifest: dict[str, Any]) -> str:
    return json.dumps([manifest["model"], manifest["target"]], sort_keys=True)
