# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair --retag and --tag-is-content"""

from typing import TYPE_CHECKING
from uuid import UUID

from dmremap.cli._meta import alone, write_lines, write_rows
from dmremap.cli.common import Result, confirm

if TYPE_CHECKING:
    from dmremap.sets.offline import Place
    from dmremap.sets.tagging import OfMain


def _of_main(plan: "OfMain", *, dry_run: bool) -> dict[str, object]:
    return {
        "device": plan.spare.path,
        "file": plan.spare.is_file,
        "start_sectors": plan.spare.start,
        "uuid": plan.superblock.uuid,
        "name": plan.superblock.name,
        "main": plan.main.path,
        "known_by": plan.known or None,
        "dry_run": dry_run,
        "result": "clean",
        "findings": [],
        "writes": [],
        "left": [],
    }


def _whose(plan: "OfMain") -> str:
    return f"set {plan.superblock.name!r} ({plan.superblock.uuid})"


def _how(plan: "OfMain") -> str:
    return (
        f"{plan.main.path} is the set's main by its {plan.known}"
        if plan.known
        else f"nothing but its size says that {plan.main.path} is the set's main"
    )


def retag(
    spare: "Place", main: "Place", uuid: UUID | None, *, dry_run: bool, yes: bool, timeout: float
) -> Result:
    """Write the tag to a main that has lost it."""
    from dmremap.sets import tagging

    plan = tagging.plan_retag(spare, main, uuid)
    data = _of_main(plan, dry_run=dry_run)
    if not plan.writes:
        return Result(data, f"{main.path}: its tag can be read; nothing to write.")
    if dry_run:
        rows = write_rows(plan.writes, 0)
        lines = [f"Would write to {main.path} ({_how(plan)}):", *write_lines(plan.writes)]
        return Result({**data, "result": "would repair", "writes": rows}, "\n".join(lines))
    confirm(
        f"Write the tag of {_whose(plan)} to {main.path}? Note that {_how(plan)}. "
        "If it has not the set's data, what is read from the set will be wrong.",
        yes=yes,
    )
    with alone(spare, timeout):
        done = tagging.retag(plan)
    text = "\n".join([f"Wrote to {main.path}:", *write_lines(done)])
    return Result({**data, "result": "repaired", "writes": write_rows(done, 0)}, text)


def content(
    spare: "Place", main: "Place", uuid: UUID | None, *, dry_run: bool, yes: bool, timeout: float
) -> Result:
    """Record that the tag in main's data is content."""
    from dmremap.sets import tagging

    plan = tagging.plan_content(spare, main, uuid)
    data = _of_main(plan, dry_run=dry_run)
    if not plan.writes or plan.tag is None:
        return Result(data, f"{spare.path}: that is recorded; nothing to write.")
    rows = write_rows(plan.writes, spare.start)
    if dry_run:
        lines = ["Would write:", *write_lines(plan.writes)]
        return Result({**data, "result": "would repair", "writes": rows}, "\n".join(lines))
    confirm(
        f"Record that the tag of set {plan.tag.set_name} on {main.path} is content of the data of "
        f"{_whose(plan)}? Note that {_how(plan)}. If it is that other set's main, what is read "
        "from this set will be wrong, and what is written destroys that set's data.",
        yes=yes,
    )
    with alone(spare, timeout):
        _, done = tagging.record_content(plan)
    text = "\n".join(["Wrote:", *write_lines(done)])
    return Result({**data, "result": "repaired", "writes": write_rows(done, spare.start)}, text)
