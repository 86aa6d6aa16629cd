# SPDX-License-Identifier: GPL-2.0-only
"""One measured number and its bar; all of them as a table or as JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dmremap.cli.common import table

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
"""Of the JSON. Fields are only ever added."""


@dataclass(frozen=True)
class Row:
    """A number, and the bar it must not exceed."""

    kernel: str
    """Series, such as 6.12."""
    name: str
    value: float
    unit: str
    bar: float | None = None
    """The highest value that is good; None is for information."""
    digits: int = 4
    """Behind the point, in the table."""
    details: dict[str, float] = field(default_factory=dict)
    """What the number is made of: instructions, seconds, bytes or bios."""
    more: dict[str, float] = field(default_factory=dict)
    """What else is known; in the JSON only."""

    @property
    def missed(self) -> bool:
        """Whether it is above its bar."""
        return self.bar is not None and self.value > self.bar

    @property
    def verdict(self) -> str:
        """One word."""
        if self.bar is None:
            return ""
        return "MISSED" if self.missed else "ok"


def ratio(base: float, extra: float) -> float:
    """Return what something costs beside a base, from what it costs more.

    >>> ratio(base=6800.0, extra=68.0)
    1.01
    """
    return round((base + extra) / base, 5)


def missed(rows: Iterable[Row]) -> list[Row]:
    """Return the rows above their bar."""
    return [row for row in rows if row.missed]


def sentence(row: Row) -> str:
    """Say which row missed its bar, and by what."""
    return f"Linux {row.kernel}: {row.name}: {number(row)} {row.unit}, the bar is {row.bar:g}"


def number(row: Row) -> str:
    """Return a value as the table shows it."""
    return f"{row.value:,.{row.digits}f}"


def _detail(row: Row) -> str:
    return ", ".join(f"{name} {value:,.10g}" for name, value in row.details.items())


def text(rows: Iterable[Row]) -> str:
    """Return the table for people."""
    headings = ("linux", "measured", "value", "", "bar", "verdict", "made of")
    return table(
        headings,
        [
            (
                row.kernel,
                row.name,
                number(row),
                row.unit,
                "" if row.bar is None else f"{row.bar:g}",
                row.verdict,
                _detail(row),
            )
            for row in rows
        ],
    )


def as_json(rows: Iterable[Row]) -> str:
    """Return all rows in the envelope for programs."""
    out: list[dict[str, Any]] = [
        {
            "kernel": row.kernel,
            "name": row.name,
            "value": row.value,
            "unit": row.unit,
            "bar": row.bar,
            "missed": row.missed,
            "details": {**row.details, **row.more},
        }
        for row in rows
    ]
    envelope = {"version": VERSION, "kind": "bench", "ok": not any(r["missed"] for r in out)}
    return json.dumps({**envelope, "rows": out}, indent=2)
