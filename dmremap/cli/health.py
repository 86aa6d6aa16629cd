# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl health"""

import click

from dmremap.cli.common import Result, need_root, output_option
from dmremap.errors import Exit
from dmremap.health import State, judge

_FAIL_AT = tuple(state.name.lower() for state in State if state is not State.OK)


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
    need_root("ask the kernel about its sets")
    from dmremap.sets import live

    judged = [(one, judge(one)) for one in live.find(names)]
    worst = max((verdict.state for _, verdict in judged), default=State.OK)

    def text() -> str:
        if not judged:
            return "No set is running."
        lines: list[str] = []
        for one, verdict in judged:
            lines.append(f"{one.name}: {verdict.state.name}")
            for reason in verdict.reasons:
                lines += [f"  {reason.code} {reason.sentence}", f"    {reason.next_step}"]
        return "\n".join(lines)

    return Result(
        {
            "state": worst,
            "sets": [
                {
                    "name": one.name,
                    "uuid": one.uuid,
                    "state": verdict.state,
                    "reasons": verdict.reasons,
                }
                for one, verdict in judged
            ],
        },
        text,
        rows="sets",
        exit=Exit.FAILURE if worst >= State[fail_at.upper()] else Exit.OK,
    )
