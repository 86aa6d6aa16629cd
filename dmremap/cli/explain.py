# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl explain"""

import click

from dmremap.cli.common import Result, fields, output_option, table
from dmremap.errors import CODES, Exit, Usage


def _all() -> dict[str, dict[str, object]]:
    from dmremap.health import CODES as HEALTH
    from dmremap.ondisk.findings import CODES as FINDINGS

    out: dict[str, dict[str, object]] = {
        name: {
            "code": name,
            "title": code.title,
            "meaning": code.meaning,
            "action": code.action,
            "exit": int(Exit(int(name[5]))),
        }
        for name, code in CODES.items()
    }
    for name, found in FINDINGS.items():
        out[name] = {
            "code": name,
            "title": found.title,
            "meaning": found.meaning,
            "action": found.next_step,
            "exit": None,
        }
    for name, health in HEALTH.items():
        out[name] = {
            "code": name,
            "title": health.title,
            "meaning": health.meaning,
            "action": health.next_step.format(name="NAME", sector="SECTOR"),
            "exit": None,
        }
    return out


@click.command()
@click.argument("code", required=False)
@output_option
def command(code: str | None) -> Result:
    """Explain a code of an error, a check or health, or list all of them."""
    known = _all()
    if code is None:
        rows = [[entry["code"], entry["title"]] for entry in known.values()]
        return Result(
            {"codes": list(known.values())}, lambda: table(["CODE", "TITLE"], rows), rows="codes"
        )
    entry = known.get(code.upper()) or known.get(f"DMR-{code.upper()}")
    if entry is None:
        raise Usage("DMR-E204", f"there is no code {code!r}")
    return Result({"codes": [entry]}, lambda: fields(entry.items()))
