# SPDX-License-Identifier: GPL-2.0-only
"""What the commands for metadata at rest share."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from dmremap.cli._make import sectors
from dmremap.cli.common import one_line

if TYPE_CHECKING:
    from dmremap import BlockWrite, Compared, Epoch, Finding, Loading, SlotCounts

P = ParamSpec("P")
R = TypeVar("R")


def start_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add --start."""
    return click.option(
        "--start",
        callback=sectors,
        default="0",
        metavar="SIZE",
        help="Where the area begins on the device, a multiple of 8 sectors.",
    )(function)


def uuid_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add --uuid."""
    return click.option(
        "--uuid",
        type=click.UUID,
        help="Only this set is meant. Needed where two sets left a superblock.",
    )(function)


def main_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add --main."""
    return click.option(
        "--main",
        metavar="DEVICE",
        help="The set's main device, or a file with its image. Without it the block devices are "
        "searched for one, unless the spare is an image.",
    )(function)


def finding_lines(findings: "Iterable[Finding]") -> list[str]:
    """Return findings for people."""
    out: list[str] = []
    for finding in findings:
        severity = finding.severity.name.lower()
        out.append(f"  {finding.code} {severity}: {one_line(finding.message)}")
        out.append(f"    {finding.next_step}")
    return out


def left_lines(device: str, left: "Sequence[Finding]") -> list[str]:
    """Return what a repair of a device has left, for people."""
    if not left:
        return [f"{device} is clean now."]
    return ["What is left:", *finding_lines(left)]


def load_words(load: "Loading") -> str:
    """Return what a load would do, for people."""
    if load.action != "refuse":
        return "accepted, and put right first" if load.action == "mend" else "accepted as it is"
    if not load.errno:
        return f"refused by dmremapctl: {load.reason}"
    also = "; read-only with accept_stale it would be started" if load.accept_stale else ""
    return f"refused with {load.errno}: {load.reason}{also}"


def compared_words(epoch: "Epoch | None", compared: "Compared | None") -> str:
    """Return the epoch of a spare and what main's tag says of it, for people."""
    number = epoch.number if epoch else 0
    if compared is None:
        return str(number)
    reason = compared.reason
    if compared.seen_epoch is not None:
        return f"{number}, compared with what this host has seen: {reason or 'it is the same'}"
    if compared.main is None:
        return f"{number}, not compared: {reason}"
    return f"{number}, compared with {compared.main}: {reason or 'main was used with this spare'}"


def slots_words(slots: "SlotCounts | None") -> str | None:
    """Return the counts, for people."""
    if slots is None:
        return None
    return (
        f"{slots.mapped} mapped ({slots.lost} lost), {slots.bad} bad, "
        f"{slots.free} free of {slots.slots}"
    )


def write_lines(writes: "Iterable[BlockWrite]") -> list[str]:
    """Return blocks that are written, for people."""
    return [
        f"  block {write.block}: {write.what}"
        + (f", for block {write.home}" if write.home not in (None, write.block) else "")
        + (f", sequence {write.sequence}" if write.home is not None else "")
        for write in writes
    ]


def both_lines(
    spare: "Iterable[BlockWrite]", main: "Iterable[BlockWrite]", where: str | None
) -> list[str]:
    """Return blocks that would be written to a spare, and to main, for people."""
    tag = write_lines(main) if where else []
    return ["Would write:", *write_lines(spare), *([f"and to {where}:", *tag] if tag else [])]
