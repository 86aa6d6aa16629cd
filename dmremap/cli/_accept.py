# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair --accept-older-spare"""

from typing import TYPE_CHECKING, Final
from uuid import UUID

from dmremap.cli._meta import (
    alone,
    both_lines,
    compared_row,
    epoch_row,
    finding_lines,
    finding_rows,
    untaken,
    write_rows,
)
from dmremap.cli.common import Result, confirm, progress

if TYPE_CHECKING:
    from dmremap.sets.accept import Acceptance
    from dmremap.sets.offline import Place

_LOSS: Final = (
    "Blocks that were mapped since this copy of the spare was made will read as main has them:",
    "what was there before. Blocks that were mapped by then will read as they were then. Nothing",
    "will say of a block that it is old. Any other copy of the spare is refused with this main",
    "from then on, and so is the spare that it was used with last, should it be found again.",
)


def accept(
    place: "Place",
    main: str | None,
    uuid: UUID | None,
    *,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Take a spare that main's tag refuses, or repair one that it does not."""
    from dmremap.sets import accept

    made = accept.plan(place, uuid, progress("checking"), main)
    before = made.before
    data: dict[str, object] = {
        "device": place.path,
        "file": place.is_file,
        "start_sectors": place.start,
        "uuid": made.sb.uuid,
        "name": made.sb.name,
        "dry_run": dry_run,
        "result": "clean",
        "findings": finding_rows(before.findings),
        "writes": write_rows(made.writes, place.start),
        "left": [],
        "compared": compared_row(made.compared),
        "epoch": epoch_row(made.epoch.epoch if made.epoch else made.sb.epoch),
        "main_writes": write_rows(made.main_writes, 0),
    }
    lines = [*finding_lines(before.findings), *_meaning(made)]
    if not made.writes:
        return Result(data, "\n".join(lines))
    if dry_run:
        result = "would accept" if made.epoch else "would repair"
        steps = both_lines(made.writes, made.main_writes, made.main)
        return Result({**data, "result": result}, "\n".join([*lines, *steps]))
    confirm("\n".join([*lines, _question(made)]), yes=yes)
    with alone(place, lock_timeout):
        after, done, tags, warnings = accept.carry_out(made)
    left = [one for one in after.findings if one.severity > 0]
    end = ["What is left:", *finding_lines(left)] if left else [f"{place.path} is clean now."]
    return Result(
        {
            **data,
            "result": "accepted" if made.epoch else "repaired",
            "writes": write_rows(done, place.start),
            "left": finding_rows(left),
            "main_writes": write_rows(tags, 0),
        },
        "\n".join([*lines, f"Wrote {len(done)} and {len(tags)} blocks.", *end]),
        warnings=(*untaken(made.main, made.main_writes, tags), *warnings),
    )


def _meaning(made: "Acceptance") -> list[str]:
    """Say what it means to take the spare."""
    if made.epoch is None:
        if made.main:
            return [f"Nothing is to be accepted: {made.main.path} was used with this spare."]
        why = made.compared.reason or "this host has seen the set with it last"
        return [f"Nothing is to be accepted: {why}."]
    sb = made.sb
    paths = made.place.path + (f" and {made.main.path}" if made.main else "")
    return [
        f"{paths}, set {sb.name!r} ({sb.uuid}): {made.compared.reason}.",
        *_LOSS,
        *(() if made.main else ("If main was put back together with it nothing is lost.",)),
    ]


def _question(made: "Acceptance") -> str:
    if made.epoch is None:
        return f"Write {len(made.writes)} blocks of the metadata to {made.place.path}?"
    tag = f" and {len(made.main_writes)} to {made.main.path}" if made.main else ""
    return (
        f"Take {made.place.path} for the spare, with {len(made.writes)} blocks written there{tag}?"
    )
