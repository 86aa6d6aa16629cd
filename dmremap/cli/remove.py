# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl remove"""

import shlex
from typing import TYPE_CHECKING

import click

from dmremap.cli.common import Result, change_options, need_root, output_option, partial
from dmremap.errors import DmRemapError, Usage

if TYPE_CHECKING:
    from dmremap.sets.live import Running


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@click.option("--all", "everything", is_flag=True, help="Stop every set.")
@click.option(
    "--deferred", is_flag=True, help="If it is in use, let it go when its last user closes it."
)
@change_options
@output_option
def command(
    names: tuple[str, ...],
    everything: bool,
    deferred: bool,
    dry_run: bool,
    yes: bool,  # noqa: ARG001 - nothing is lost, so nothing is asked
    lock_timeout: float,
) -> Result:
    """Stop sets. What is on disk stays, and 'assemble' brings them back.

    Copies of the spare that were made before, such as snapshots and images, are refused from then
    on as older copies of it: everywhere if main has a tag, on this host if it was adopted.

    Of an adopted set the udev rule /etc/udev/rules.d/59-dmremap-UUID.rules stays too: without the
    set the disk must not be mounted.
    """
    if bool(names) == everything:
        raise Usage("DMR-E201", "say which set: a name, a uuid or --all")
    need_root("stop a set")
    from dmremap import dm
    from dmremap.host.lock import locked
    from dmremap.sets import live, remove, udevrule

    done: list[dict[str, object]] = []
    failed: list[DmRemapError] = []
    warnings: list[str] = []
    with locked(lock_timeout):
        chosen = live.find(names)
        for one in chosen:
            rule = udevrule.path_of(one.uuid) if one.uuid else None
            entry: dict[str, object] = {
                "name": one.name,
                "uuid": one.uuid,
                "back": _back(one),
                "rule": rule if rule and rule.exists() else None,
            }
            try:
                if not dry_run:
                    warnings += remove.remove(one, deferred=deferred)
            except DmRemapError as err:
                failed.append(err)
                done.append({**entry, "result": "failed", "error": err.as_dict()})
            else:
                result = "would stop" if dry_run else "deferred" if deferred else "stopped"
                if deferred and not dry_run and not dm.exists(one.name):
                    result = "stopped"
                done.append({**entry, "result": result, "error": None})
    if failed and len(chosen) == 1:
        raise failed[0]
    error = partial(failed, len(chosen), "stopped")

    def text() -> str:
        if not done:
            return "No set is running."
        lines: list[str] = []
        for entry in done:
            lines.append(f"{entry['name']}: {entry['result']}")
            if entry["result"] != "failed":
                lines.append(f"  to bring it back: {entry['back']}")
            if entry["rule"]:
                lines.append(f"  its udev rule stays: {entry['rule']}")
        return "\n".join(lines)

    return Result(
        {"dry_run": dry_run, "sets": done},
        text,
        warnings=tuple(warnings),
        rows="sets",
        error=error,
    )


def _back(one: "Running") -> str:
    from dmremap.sets.naming import DM_UUID_PREFIX

    if not one.device.uuid.startswith(DM_UUID_PREFIX):
        # Made with plain dmsetup: its spare may be of one set with no name and no tag.
        line = one.tables[0].line
        return f"dmsetup create {shlex.quote(one.name)} --table {shlex.quote(line)}"
    start = one.tables[0].spare_start
    where = f" --spare {one.tables[0].spare} --spare-start {start}" if start else ""
    return f"dmremapctl assemble {one.uuid}{where}"
