# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair --accept-older-spare"""

from typing import Any, Final

from dmremap import Accepted, accept_older_spare
from dmremap.cli._meta import both_lines, finding_lines, left_lines
from dmremap.cli.common import Result, confirm, progress

_LOSS: Final = (
    "Blocks that were mapped since this copy of the spare was made will read as main has them:",
    "what was there before. Blocks that were mapped by then will read as they were then. Nothing",
    "will say of a block that it is old. Any other copy of the spare is refused with this main",
    "from then on, and so is the spare that it was used with last, should it be found again.",
)


def accept(device: str, *, yes: bool, **options: Any) -> Result:
    """Take a spare that main's tag refuses, or repair one that it does not."""

    def ask(plan: Accepted) -> None:
        confirm("\n".join([*_meaning(plan), _question(plan)]), yes=yes)

    done = accept_older_spare(device, confirm=ask, progress=progress(), **options)
    lines = _meaning(done)
    if done.result == "clean":
        return Result(done, "\n".join(lines))
    if done.dry_run:
        steps = both_lines(done.writes, done.main_writes, done.main)
        return Result(done, "\n".join([*lines, *steps]))
    end = left_lines(done.device, done.left)
    wrote = f"Wrote {len(done.writes)} and {len(done.main_writes)} blocks."
    return Result(done, "\n".join([*lines, wrote, *end]))


def _meaning(plan: Accepted) -> list[str]:
    """Say what was found and what it means to take the spare."""
    found = finding_lines(plan.findings)
    if not plan.accepts:
        if plan.main:
            said = f"{plan.main} was used with this spare"
        else:
            said = plan.compared.reason or "this host has seen the set with it last"
        return [*found, f"Nothing is to be accepted: {said}."]
    paths = plan.device + (f" and {plan.main}" if plan.main else "")
    return [
        *found,
        f"{paths}, set {plan.name!r} ({plan.uuid}): {plan.compared.reason}.",
        *_LOSS,
        *(() if plan.main else ("If main was put back together with it nothing is lost.",)),
    ]


def _question(plan: Accepted) -> str:
    blocks = len(plan.writes)
    if not plan.accepts:
        return f"Write {blocks} blocks of the metadata to {plan.device}?"
    tag = f" and {len(plan.main_writes)} to {plan.main}" if plan.main else ""
    return f"Take {plan.device} for the spare, with {blocks} blocks written there{tag}?"
