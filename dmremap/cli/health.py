# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl health"""

import click

from dmremap import Exit, HealthState, Judged, judge
from dmremap.cli.common import Result, output_option

_FAIL_AT = tuple(state.name.lower() for state in HealthState if state is not HealthState.OK)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--fail-at",
    type=click.Choice(_FAIL_AT),
    default="degraded",
    show_default=True,
    help="The mildest state that makes the exit code 1.",
)
@output_option
def command(names: tuple[str, ...], fail_at: str) -> Result:
    """Judge running sets, given by name or uuid; without names all of them.

    \b
    OK        nothing to do
    DEGRADED  the set does all it should, and something needs a person
    FAILING   the next failing block may reach the user
    FAILED    I/O fails or is stuck now, or nothing is protected any more

    The exit code is 0 if every set is better than --fail-at, 1 if one is not, 3 if a set
    that was named is not running. Each reason has a code: see 'dmremapctl explain CODE'.
    """
    answer = judge(*names)
    failed = answer.state >= HealthState[fail_at.upper()]
    return Result(
        answer,
        lambda: _text(answer.sets) or "No set is running.",
        rows="sets",
        exit=Exit.FAILURE if failed else Exit.OK,
    )


def _text(sets: tuple[Judged, ...]) -> str:
    lines: list[str] = []
    for verdict in sets:
        lines.append(f"{verdict.name}: {verdict.state.name}")
        for reason in verdict.reasons:
            lines += [f"  {reason.code} {reason.sentence}", f"    {reason.next_step}"]
    return "\n".join(lines)
