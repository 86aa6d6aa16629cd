# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl status"""

import os
from typing import TYPE_CHECKING

import click

from dmremap.cli.common import Result, fields, output_option, size, table

if TYPE_CHECKING:
    from dmremap.sets.live import Running


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@output_option
def command(names: tuple[str, ...]) -> Result:
    """Show how running sets are, all of them or those named."""
    from dmremap.sets import live

    if os.geteuid() != 0:
        return _without_root(names)
    rows = [_row(one) for one in live.find(names)]

    def text() -> str:
        if not rows:
            return "No set is running."
        return _one(rows[0]) if len(rows) == 1 else _many(rows)

    return Result({"sets": rows}, text, rows="sets")


def _without_root(names: tuple[str, ...]) -> Result:
    from dmremap.errors import NotFound
    from dmremap.sets import live

    seen = live.names_in_sysfs()
    for name in names:
        if not any(name in one[:2] for one in seen):
            raise NotFound("DMR-E303", f"no set {name!r} is running")
    rows: list[dict[str, object]] = [
        {"name": name, "uuid": uuid, "device": f"/dev/{kernel}", "targets": []}
        for name, uuid, kernel in seen
        if not names or name in names or uuid in names
    ]
    shown = [[row["name"], row["device"], row["uuid"]] for row in rows]
    return Result(
        {"sets": rows},
        lambda: table(["NAME", "DEVICE", "UUID"], shown) or "No set is running.",
        warnings=("some fields need root",),
        rows="sets",
    )


def _row(one: "Running") -> dict[str, object]:
    from dmremap.health import judge
    from dmremap.host import blockdev

    verdict = judge(one)
    states = {status.mode for status in one.status}
    state = "suspended" if one.device.suspended else None
    if not one.device.live_table:
        state = "incomplete"
    return {
        "name": one.name,
        "uuid": one.uuid,
        "device": one.path,
        "state": state or ("ro" if "ro" in states else "rw" if states == {"rw"} else "init"),
        "readonly": one.device.read_only,
        "open_count": one.device.open_count,
        "data_sectors": sum(target.length for target in one.tables),
        "health": verdict.state,
        "reasons": verdict.reasons,
        "targets": [
            {
                "table": {
                    "start": line.start,
                    "sectors": line.length,
                    "main": blockdev.table_path(line.main),
                    "spare": blockdev.table_path(line.spare),
                    "spare_start_sectors": line.spare_start,
                    "spare_sectors": line.spare_len,
                    "main_start_sectors": line.main_start,
                    "errors": line.errors,
                    "remap_rate": line.remap_rate,
                    "accept_stale": line.accept_stale,
                },
                "status": status,
            }
            for line, status in zip(
                one.tables,
                [*one.status, *[None] * (len(one.tables) - len(one.status))],
                strict=False,
            )
        ],
    }


def _used(row: dict[str, object]) -> tuple[str, int, str, str]:
    """Return mapped/slots, pending, main and spare over all targets of a set."""
    mapped = slots = pending = 0
    mains: list[str] = []
    spares: list[str] = []
    targets = row["targets"]
    for target in targets if isinstance(targets, list) else []:
        status = target["status"]
        for leg, devices in (("main", mains), ("spare", spares)):
            failing = status is not None and getattr(status, leg) == "failing"
            devices.append(f"{target['table'][leg]}{' (failing)' if failing else ''}")
        if status is not None:
            mapped += status.mapped
            slots += status.slots
            pending += status.pending
    return f"{mapped}/{slots}", pending, ", ".join(mains), ", ".join(spares)


def _choices(row: dict[str, object]) -> list[tuple[str, object]]:
    """Return what counts of what may be chosen, where the module says it."""
    targets = row["targets"]
    told = [one["status"] for one in targets if one["status"]] if isinstance(targets, list) else []
    errors = dict.fromkeys(one.errors for one in told if one.errors)
    rates = dict.fromkeys(one.remap_rate for one in told if one.remap_rate is not None)
    return [
        ("errors", ", ".join(errors) or None),
        ("remap rate", ", ".join(f"{n} a minute" if n else "no limit" for n in rates) or None),
    ]


def _health(row: dict[str, object]) -> str:
    return str(getattr(row["health"], "name", row["health"])).lower()


def _one(row: dict[str, object]) -> str:
    used, pending, main, spare = _used(row)
    sectors = row["data_sectors"]
    reasons = row["reasons"]
    pairs: list[tuple[str, object]] = [
        ("name", row["name"]),
        ("uuid", row["uuid"]),
        ("device", row["device"]),
        ("state", f"{row['state']}{' (read-only)' if row['readonly'] else ''}"),
        ("size", size(sectors) if isinstance(sectors, int) else "-"),
        ("main", main),
        ("spare", spare),
        ("mapped", f"{used} slots"),
        ("pending", pending),
        *_choices(row),
        ("health", _health(row)),
    ]
    lines = [fields(pairs)]
    for reason in reasons if isinstance(reasons, tuple) else ():
        lines += [f"  {reason.code}: {reason.sentence}", f"    {reason.next_step}"]
    return "\n".join(lines)


def _many(rows: list[dict[str, object]]) -> str:
    shown = []
    for row in rows:
        used, pending, main, spare = _used(row)
        reasons = row["reasons"]
        step = reasons[0].next_step if isinstance(reasons, tuple) and reasons else ""
        shown.append([row["name"], row["state"], main, spare, used, pending, _health(row), step])
    headers = ["NAME", "STATE", "MAIN", "SPARE", "MAPPED", "PENDING", "HEALTH", "NEXT STEP"]
    return table(headers, shown)
