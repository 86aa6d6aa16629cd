# SPDX-License-Identifier: GPL-2.0-only
"""Which mutants are tried: a sample by a seed, that parts share without knowing of each other.

Lines are drawn, not mutants: of each one, so that a line that can go wrong in ten ways counts once.
The sample has as many slots as mutants are asked for. Slot k tries number k of the order, and if
that one is no mutant (it does not compile, or makes no difference) number k + slots, and so on. So
part n of m, which has the slots n - 1, n - 1 + m, ... tries the same as a run without parts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.mutants.mutant import Mutant


def _drawn(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def order(mutants: Iterable[Mutant], seed: int) -> list[Mutant]:
    """Return all mutants in the order of a seed: one of each line, then another one of each."""
    lines: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        lines[mutant.place].append(mutant)
    ranked = [
        (rank, _drawn(seed, place), mutant)
        for place, found in lines.items()
        for rank, mutant in enumerate(sorted(found, key=lambda one: _drawn(seed, one.key)))
    ]
    return [mutant for _, _, mutant in sorted(ranked, key=lambda row: row[:2])]


def slots(
    ordered: Sequence[Mutant], number: int, part: int = 1, parts: int = 1
) -> list[list[Mutant]]:
    """Return what each slot of a part tries, one after the other."""
    number = min(number, len(ordered))
    return [list(ordered[slot::number]) for slot in range(part - 1, number, parts)]
