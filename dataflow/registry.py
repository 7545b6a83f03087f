"""Tables of things that a configuration names: reward rules, readers, engines. Plug-ins add rows to the built-in ones."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from corewarding.dataflow import plugins
from corewarding.dataflow.errors import UserError

T = TypeVar("T")


class UnknownNameError(UserError, KeyError):
    """A name that no row of a table has."""

    __str__ = Exception.__str__  # KeyError's would quote the message


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row was registered."""

    module: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


class Registry(Mapping[str, T], Generic[T]):
    """A mapping by name, in the order of registration. Looking anything up first loads the plug-ins of this process."""

    def __init__(self, what: str) -> None:
        """what: the rows' kind, as it stands in messages, for example "rule"."""
        self.what = what
        self._rows: dict[str, T] = {}
        self._places: dict[str, Place] = {}

    def register(self, name: str, row: T, *, depth: int = 1) -> T:
        """Adds a row and returns it.

        A name is taken once: UserError where another file has registered it. The same file may register it again, since a script
        that lists itself as a plug-in is read twice. depth: of the caller to blame, 1 being the caller of this method.
        """
        frame = sys._getframe(depth)
        place = Place(frame.f_globals.get("__name__", "?"), frame.f_code.co_filename, frame.f_lineno)
        before = self._places.get(name)
        if before is not None and before.module != "__main__" and before.file != place.file:
            raise UserError(f"{place}: {self.what} {name!r} is registered already, at {before}; choose another name")
        self._rows[name], self._places[name] = row, place
        return row

    def named(self, name: str) -> Callable[[T], T]:
        """`register` as a decorator."""
        return lambda row: self.register(name, row, depth=2)

    def unregister(self, name: str) -> None:
        """Removes a row; KeyError where there is none."""
        del self._rows[name], self._places[name]

    def __getitem__(self, name: str) -> T:
        """UnknownNameError with the nearest name, or all of them."""
        plugins.load_listed()
        try:
            return self._rows[name]
        except KeyError:
            raise UnknownNameError(self.unknown(name)) from None

    def unknown(self, name: str) -> str:
        """The message for a name that no row has: the nearest one, or all there are."""
        near = difflib.get_close_matches(name, self, n=1)
        return f"{self.what} {name!r} does not exist; " + (
            f"did you mean {near[0]}?" if near else f"there are {', '.join(self)}"
        )

    def unreachable(self, name: str) -> str | None:
        """Why other processes of a run would not have this row; None where they do, or where it does not exist."""
        place = self._places.get(name)
        if place is None or place.module.startswith("corewarding.") or plugins.is_loaded_from(place.module):
            return None
        return (
            f"{self.what} {name!r} is registered at {place}, which the other processes of a run do not import; save it in a file "
            "and name that file in plugins"
        )

    def __contains__(self, name: object) -> bool:
        plugins.load_listed()
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        plugins.load_listed()
        return iter(self._rows)

    def __len__(self) -> int:
        plugins.load_listed()
        return len(self._rows)
