# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl assemble"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import click

from dmremap.cli._make import rate_option, sectors
from dmremap.cli.common import Result, change_options, need_root, output_option, partial
from dmremap.errors import DmRemapError, NotFound, Refused, Usage

if TYPE_CHECKING:
    from dmremap.dm.lines import ErrorPolicy
    from dmremap.sets.discover import Found


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@click.option("--all", "everything", is_flag=True, help="Start every set whose devices are there.")
@click.option("--main", help="The main device; must be the one that the set names.")
@click.option("--spare", help="Look for the superblock here only.")
@click.option(
    "--spare-start", callback=sectors, default="0", help="Where the area starts on --spare."
)
@click.option("--name", help="Call the device so, instead of what the superblock says.")
@click.option(
    "--errors",
    type=click.Choice(["confirm", "medium"]),
    help="Which errors may remap, see 'create'; recorded in the set.",
)
@rate_option("How many pieces may be remapped in a minute, see 'create'; recorded in the set.")
@click.option("--readonly", is_flag=True, help="Write nothing to either device.")
@change_options
@output_option
def command(
    names: tuple[str, ...],
    everything: bool,
    main: str | None,
    spare: str | None,
    spare_start: int,
    name: str | None,
    errors: str | None,
    remap_rate: int | None,
    readonly: bool,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is asked here
    lock_timeout: float,
) -> Result:
    """Start sets that exist on disk.

    Give names or uuids, or --all, or --spare. Sets are found by reading the superblocks of all
    block devices; the main device is known by its tag or, of an adopted set, by its id and size.

    --errors and --remap-rate are written to the spare before the start, and count for every start
    from then on. With --readonly nothing is written, and they count for this one.
    """
    if not names and not everything and spare is None:
        raise Usage("DMR-E201", "say which set: a name, a uuid, --spare DEVICE or --all")
    if names and everything:
        raise Usage("DMR-E201", "--all and names exclude each other")
    if spare_start and spare is None:
        raise Usage("DMR-E201", "--spare-start needs --spare")
    need_root("assemble sets")
    from dmremap.host.blockdev import block_devno
    from dmremap.host.lock import locked
    from dmremap.sets import assemble, discover, live

    if spare is not None and block_devno(spare) is None:
        raise NotFound("DMR-E302", f"{spare} is not a block device")
    done: list[dict[str, object]] = []
    failed: list[DmRemapError] = []
    warnings: list[str] = []
    with locked(lock_timeout):
        found = discover.scan([(spare, spare_start)] if spare is not None else [], warnings)
        if spare is not None and not found:
            raise NotFound("DMR-E304", f"{spare} has no superblock at sector {spare_start}")
        chosen = discover.select(found, names) if names else found
        if (main is not None or name is not None) and len(chosen) != 1:
            raise Usage("DMR-E201", "--main and --name need exactly one set")
        up = live.find()
        for one in chosen:
            entry: dict[str, object] = {"name": one.name, "uuid": one.superblock.uuid}
            try:
                _once(one, chosen)
                started, line = assemble.assemble(
                    one,
                    main=main,
                    name=name,
                    errors=cast("ErrorPolicy | None", errors),
                    remap_rate=remap_rate,
                    readonly=readonly,
                    dry_run=dry_run,
                    up=up,
                )
            except DmRemapError as err:
                failed.append(err)
                done.append({**entry, "result": "failed", "error": err.as_dict()})
                continue
            warnings += started.warnings
            result = "running" if started.already else "would start" if dry_run else "started"
            done.append(
                {
                    **entry,
                    "name": started.name,
                    "device": started.path,
                    "result": result,
                    "recorded": started.recorded,
                    "table": line.line,
                    "error": None,
                }
            )
    if len(failed) == 1 and len(chosen) == 1:
        raise failed[0]
    error = partial(failed, len(chosen), "started")

    def text() -> str:
        if not done:
            return "No set was found."
        return "\n".join(
            f"{entry['name']}: {entry['result']}"
            + (f", {entry['device']}" if "device" in entry else "")
            + _recorded(entry.get("recorded"), dry_run=dry_run)
            + (f"\n  {entry['table']}" if dry_run and "table" in entry else "")
            for entry in done
        )

    return Result(
        {"dry_run": dry_run, "sets": done},
        text,
        warnings=tuple(warnings),
        rows="sets",
        error=error,
    )


def _recorded(names: object, *, dry_run: bool) -> str:
    if not isinstance(names, tuple) or not names:
        return ""
    return f"\n  {'would record' if dry_run else 'recorded'}: {', '.join(map(str, names))}"


def _once(one: "Found", chosen: Sequence["Found"]) -> None:
    """Refuse a set that two devices carry: one of them is a copy."""
    twins = [other.spare.path for other in chosen if other.superblock.uuid == one.superblock.uuid]
    if len(twins) > 1:
        raise Refused("DMR-E521", f"set {one.name!r} is on several spares: {', '.join(twins)}")
