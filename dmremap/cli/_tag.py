# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl repair --retag and --tag-is-content"""

from collections.abc import Iterable
from typing import Any

from dmremap import BlockWrite, Tagged, retag, tag_is_content
from dmremap.cli._meta import write_lines
from dmremap.cli.common import Result, confirm


def _whose(plan: Tagged) -> str:
    return f"set {plan.name!r} ({plan.uuid})"


def _how(plan: Tagged) -> str:
    return (
        f"{plan.main} is the set's main by its {plan.known_by}"
        if plan.known_by
        else f"nothing but its size says that {plan.main} is the set's main"
    )


def _lines(head: str, writes: Iterable[BlockWrite]) -> str:
    return "\n".join([head, *write_lines(writes)])


def write(device: str, main: str, *, yes: bool, **options: Any) -> Result:
    """Write the tag to a main that has lost it."""

    def ask(plan: Tagged) -> None:
        confirm(
            f"Write the tag of {_whose(plan)} to {plan.main}? Note that {_how(plan)}. "
            "If it has not the set's data, what is read from the set will be wrong.",
            yes=yes,
        )

    done = retag(device, main, confirm=ask, **options)
    if done.result == "clean":
        return Result(done, f"{done.main}: its tag can be read; nothing to write.")
    if done.dry_run:
        return Result(done, _lines(f"Would write to {done.main} ({_how(done)}):", done.writes))
    return Result(done, _lines(f"Wrote to {done.main}:", done.writes))


def call_content(device: str, main: str, *, yes: bool, **options: Any) -> Result:
    """Record that the tag in main's data is content."""

    def ask(plan: Tagged) -> None:
        confirm(
            f"Record that the tag of set {plan.content_of} on {plan.main} is content of the data "
            f"of {_whose(plan)}? Note that {_how(plan)}. If it is that other set's main, what is "
            "read from this set will be wrong, and what is written destroys that set's data.",
            yes=yes,
        )

    done = tag_is_content(device, main, confirm=ask, **options)
    if done.result == "clean":
        return Result(done, f"{done.device}: that is recorded; nothing to write.")
    return Result(done, _lines("Would write:" if done.dry_run else "Wrote:", done.writes))
