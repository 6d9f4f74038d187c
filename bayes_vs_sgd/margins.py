"""Margins: differences between laws that do not matter."""

from collections.abc import Mapping

Margins = Mapping[str, float]


def margins(location: float = 0.2, scale: float = 0.1, temperature: float = 0.2) -> Margins:
    """Margins by kind of effect: in sd of the reference, or in logarithm."""
    kinds = {"mean": location, "median": location, "log_deviation_ratio": scale, "log_mad_ratio": scale}
    return kinds | {"log_temperature": temperature}


MARGINS = margins()
