"""Margins: differences between laws that do not matter."""

from collections.abc import Mapping

import numpy as np

from .errors import InputError

Margins = Mapping[str, float]
INSIDE, OUTSIDE, OPEN = "inside", "outside", "open"


def margins(
    location: float = 0.2,
    scale: float = 0.1,
    temperature: float = 0.2,
    distance: float = 0.2,
    variation: float = 0.1,
    odds: float = 1.5,
) -> Margins:
    """Margins by kind of effect: in sd of the reference, or in logarithm; of the odds a ratio is given.

    Raises
    ------
    InputError
        Of a margin that nothing can be inside of.
    """
    least = {"location": 0, "scale": 0, "temperature": 0, "distance": 0, "variation": 0, "odds": 1}
    given = (location, scale, temperature, distance, variation, odds)
    for (name, bound), value in zip(least.items(), given, strict=True):
        if not value > bound:
            raise InputError(f"the margin of {name} is {value:g}: give more than {bound}")
    kinds = {"mean": location, "median": location, "log_deviation_ratio": scale, "log_mad_ratio": scale}
    kinds |= {"log_temperature": temperature, "wasserstein": distance, "total_variation": variation}
    return kinds | {"log_odds": float(np.log(odds))}


def place(low: float, high: float, margin: float) -> str:
    """Where an interval of an effect lies: inside its margin, outside it, or across it."""
    if -margin < low and high < margin:
        return INSIDE
    return OUTSIDE if low > margin or high < -margin else OPEN


MARGINS = margins()
