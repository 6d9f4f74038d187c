"""What the user gave cannot be used: one line, in the user's words."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Raised before anything compiles; says what was given, what was expected and how to mend it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'loss'? known: ...`` for an unknown name."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"
