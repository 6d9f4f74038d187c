"""Keep compiled programs on disk, so that a second run starts at once, by JAX's persistent compilation cache."""

import os
from pathlib import Path

import jax

VARIABLE = "BAYES_VS_SGD_CACHE"
"""Environment variable: ``off`` for no cache, or the folder to use."""


def cache_folder() -> Path | None:
    """Where compiled programs are kept: ``$BAYES_VS_SGD_CACHE``, or the user's cache folder; None if switched off."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "0", "no"):
        return None
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayes-vs-sgd" / "jax"


def enable_cache() -> Path | None:
    """Keep compiled programs from now on; without effect where it is switched off or nothing can be written.

    A folder that the user has given to JAX itself (``JAX_COMPILATION_CACHE_DIR``) stays the one.

    Returns
    -------
    Path or None
        The folder in use.
    """
    folder = cache_folder()
    if folder is None:
        return None
    given = jax.config.values["jax_compilation_cache_dir"]
    if given is not None:
        return Path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder
