"""Text of models and data sets, made safe for a terminal or a log line."""

from __future__ import annotations

import sys
import unicodedata

_HIDDEN = {
    "Cc",
    "Cf",
    "Zl",
    "Zp",
    "Cs",
}  # control codes, invisible and direction marks, line separators, lone surrogates


def plain(text: str, *, keep: str = "\n\t") -> str:
    r"""`text` with every control or invisible character written as an escape, such as \x1b; those in `keep` stay.

    A model can write escape sequences that clear the screen, set a title or hide what follows.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        repr(letter)[1:-1] if letter not in keep and unicodedata.category(letter) in _HIDDEN else letter
        for letter in text
    )


def say(text: str, *, error: bool = False) -> None:
    """Prints a line with text from outside, made plain; on standard error for `error`."""
    print(plain(text), file=sys.stderr if error else sys.stdout, flush=True)
