# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl list"""

import os
from typing import TYPE_CHECKING

import click

from dmremap.cli._meta import finding_rows
from dmremap.cli.common import Result, one_line, output_option, size, table

if TYPE_CHECKING:
    from dmremap.ondisk import Superblock


@click.command()
@click.option("--running", "only_running", is_flag=True, help="Do not look for sets on disk.")
@output_option
def command(only_running: bool) -> Result:
    """List sets: those that run, and those found on disk.

    Finding sets reads the metadata of every block device, which only root can do.
    """
    from dmremap.sets import discover, live

    if os.geteuid() != 0:
        names = live.names_in_sysfs()
        return _result(
            [
                {"name": name, "uuid": uuid, "state": "running", "device": f"/dev/{kernel}"}
                for name, uuid, kernel in names
            ],
            ("only root sees sets that do not run, and more than their names",),
        )
    from dmremap.dm.lines import LEGS
    from dmremap.host import blockdev
    from dmremap.ondisk.findings import Finding

    up = live.find()
    rows: list[dict[str, object]] = [
        {
            "name": one.name,
            "uuid": one.uuid,
            "state": "running" if one.device.live_table else "incomplete",
            "kind": None,
            "device": one.path,
            "main": blockdev.table_path(one.tables[0].main),
            "spare": blockdev.table_path(one.tables[0].spare),
            "data_sectors": sum(target.length for target in one.tables),
            "problems": [
                f"{leg} is failing"
                for leg in LEGS
                if any(getattr(status, leg) == "failing" for status in one.status)
            ],
            "findings": [],
        }
        for one in up
    ]
    known = {one.uuid for one in up}
    warnings: list[str] = []
    found = [] if only_running else discover.scan(warnings=warnings)
    for one in found:
        sb = one.superblock
        if str(sb.uuid) in known:
            for row in rows:
                if row["uuid"] == str(sb.uuid):
                    row["kind"] = "tagged" if sb.tagged else "adopted"
            continue
        problems = [problem.reason for problem in one.refusals]
        if sb.superseded:
            pass  # nobody needs its main any more
        elif not one.mains:
            problems.append("main is missing")
        elif len(one.mains) > 1:
            problems.append("main is ambiguous")
        rows.append(
            {
                "name": one.name,
                "uuid": str(sb.uuid),
                "state": _state(sb, problems),
                "kind": "tagged" if sb.tagged else "adopted",
                "device": None,
                "main": one.mains[0].path if len(one.mains) == 1 else None,
                "spare": one.spare.path,
                "data_sectors": sb.data_sectors,
                "problems": problems,
                "findings": finding_rows(
                    Finding(why.code, why.reason, hint=why.hint) for why in one.refusals
                ),
            }
        )
    return _result(rows, tuple(warnings))


def _findings(row: dict[str, object]) -> list[dict[str, object]]:
    found = row.get("findings")
    return found if isinstance(found, list) else []


def _state(sb: "Superblock", problems: list[str]) -> str:
    if sb.superseded:
        return "superseded"
    return "incomplete" if problems else "stopped"


def _result(rows: list[dict[str, object]], warnings: tuple[str, ...]) -> Result:
    def text() -> str:
        if not rows:
            return "No set was found."
        shown = []
        steps: list[str] = []
        for row in rows:
            sectors = row.get("data_sectors")
            problems = row.get("problems")
            shown.append(
                [
                    row["name"],
                    row["state"],
                    size(sectors) if isinstance(sectors, int) else "-",
                    row.get("main") or "-",
                    row.get("spare") or "-",
                    row["uuid"] or "-",
                    "; ".join(problems) if isinstance(problems, list) else "",
                ]
            )
            steps += [
                one_line(f"{row['name']}: {found['code']}: {found['next_step']}")
                for found in _findings(row)
            ]
        head = ["NAME", "STATE", "SIZE", "MAIN", "SPARE", "UUID", "PROBLEM"]
        return "\n".join([table(head, shown), *steps])

    return Result({"sets": rows}, text, warnings=warnings, rows="sets")
