# SPDX-License-Identifier: GPL-2.0-only
"""What every verb answers with, and what becomes of it in JSON."""

import dataclasses
import enum
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from dmremap.errors import DmRemapError, Partial, PermissionDenied

if TYPE_CHECKING:
    from dmremap.ondisk import Progress

_SHOWN: Final = "dmremap"
BESIDE: Final = {_SHOWN: "beside"}
"""Metadata of a field that stands beside the data in JSON, not in it."""
MAYBE: Final = {_SHOWN: "maybe"}
"""Metadata of a field that JSON leaves out where it is None."""

Telling = Callable[[str, int, int], None]
"""Shows progress. It gets what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a verb answers.

    warnings: sentences about what is not as it should be and did not keep the verb from its work.
    error: why a part was not done, as one of several sets. What nothing came of is raised.
    """

    warnings: tuple[str, ...] = field(default=(), metadata=BESIDE)
    error: DmRemapError | None = field(default=None, metadata=BESIDE)


def to_dict(value: Any) -> Any:
    """Return a value made of what JSON knows: of an answer what `-o json` has under "data".

    A dataclass becomes an object, with the order of its fields kept; an enum its value, or its name
    in lower case where that is a number; bytes become hexadecimal, uuids and paths text.

    >>> dmremap.to_dict(dmremap.explain("E405"))["codes"][0]["exit"]
    4
    """
    match value:
        case enum.Enum():
            return value.name.lower() if isinstance(value, enum.IntEnum) else to_dict(value.value)
        case None | bool() | int() | float() | str():
            return value
        case UUID() | PurePath():
            return str(value)
        case bytes():
            return value.hex()
        case dict():
            return {str(key): to_dict(item) for key, item in value.items()}
        case DmRemapError():
            return value.as_dict()
    if dataclasses.is_dataclass(value):
        return dict(_items(value))
    return [to_dict(item) for item in value]


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    for known in dataclasses.fields(value):
        item = getattr(value, known.name)
        shown = known.metadata.get(_SHOWN)
        if shown is None or (shown == "maybe" and item is not None):
            yield known.name, to_dict(item)


def step(progress: Telling | None, what: str) -> "Progress | None":
    """Return what shows the progress of one step of a verb."""
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def need_root(what: str) -> None:
    """Refuse early and in one line where only root can do it."""
    if os.geteuid() != 0:
        raise PermissionDenied("DMR-E601", f"only root can {what}")


def partial(failed: Sequence[DmRemapError], total: int, done: str) -> Partial | None:
    """Return the error that says how many of several sets were not `done`.

    None if all were. What keeps the only one from it is raised.
    """
    if not failed:
        return None
    if total == 1:
        raise failed[0]
    reasons = "; ".join(err.message for err in failed)
    return Partial("DMR-E801", f"{len(failed)} of {total} sets were not {done}: {reasons}")
