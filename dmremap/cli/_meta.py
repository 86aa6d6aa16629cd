# SPDX-License-Identifier: GPL-2.0-only
"""What the commands for metadata at rest share."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from uuid import UUID

import click

from dmremap.cli._make import sectors
from dmremap.cli.common import need_root, one_line

if TYPE_CHECKING:
    from dmremap.ondisk import Epoch
    from dmremap.ondisk.findings import Finding
    from dmremap.ondisk.load import Load
    from dmremap.ondisk.mend import Write
    from dmremap.sets.compare import Compared
    from dmremap.sets.offline import Place

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


def place_of(path: str, start: int, what: str) -> "Place":
    """Return a device or image; devices need root, images do not."""
    from dmremap.sets.offline import locate

    place = locate(path, start)
    if not place.is_file:
        need_root(what)
    return place


@contextlib.contextmanager
def alone(place: "Place", timeout: float) -> Iterator[None]:
    """Hold the lock of all commands that change devices; an image has one of its own."""
    from dmremap.host.lock import locked

    with contextlib.nullcontext() if place.is_file else locked(timeout):
        yield


def finding_rows(findings: "Iterable[Finding]") -> list[dict[str, object]]:
    """Return findings for programs."""
    return [
        {
            "code": one.code,
            "severity": one.severity,
            "message": one.message,
            "next_step": one.next_step,
            "blocks": one.blocks,
        }
        for one in findings
    ]


def finding_lines(findings: "Iterable[Finding]") -> list[str]:
    """Return findings for people."""
    out: list[str] = []
    for one in findings:
        out.append(f"  {one.code} {one.severity.name.lower()}: {one_line(one.message)}")
        out.append(f"    {one.next_step}")
    return out


def load_row(load: "Load") -> dict[str, object]:
    """Return what a load would do, for programs."""
    first = load.refusals[0] if load.refusals else None
    mends = not first and load.severity > 0
    return {
        "action": "refuse" if first else "mend" if mends else "accept",
        "errno": first.name or None if first else None,
        "code": first.code if first else None,
        "reason": first.reason if first else None,
        "accept_stale": load.stale,
    }


def load_words(load: "Load") -> str:
    """Return what a load would do, for people."""
    if not load.refusals:
        return "accepted, and put right first" if load.severity > 0 else "accepted as it is"
    first = load.refusals[0]
    also = "; read-only with accept_stale it would be started" if load.stale else ""
    if not first.name:
        return f"refused by dmremapctl: {first.reason}"
    return f"refused with {first.name}: {first.reason}{also}"


def epoch_row(epoch: "Epoch | None") -> dict[str, object] | None:
    """Return an epoch for programs, null where there is none."""
    # Not every program that reads JSON takes a number of 64 bits for what it is.
    return {"number": epoch.number, "id": f"{epoch.id:016x}"} if epoch and epoch.number else None


def compared_row(one: "Compared | None") -> dict[str, object] | None:
    """Return what main's tag, or this host, says of a spare, for programs."""
    if one is None:
        return None
    tag = one.tag
    return {
        "verdict": one.verdict,
        "main": one.main,
        "tag_epoch": epoch_row(tag.epoch) if tag and not tag.fault else None,
        "seen_epoch": epoch_row(one.seen),
        "reason": one.reason,
    }


def compared_words(load: "Load", one: "Compared | None") -> str | None:
    """Return the epoch and what main's tag says of it, for people."""
    if load.superblock is None:
        return None
    number = load.superblock.epoch.number
    if one is None:
        return str(number)
    if one.seen is not None:
        return f"{number}, compared with what this host has seen: {one.reason or 'it is the same'}"
    if one.main is None:
        return f"{number}, not compared: {one.reason}"
    return f"{number}, compared with {one.main}: {one.reason or 'main was used with this spare'}"


def slots_words(load: "Load") -> str | None:
    """Return the counts, for people."""
    if len(load.blocks) < 2:
        return None
    c = load.counts
    return f"{c.mapped} mapped ({c.lost} lost), {c.bad} bad, {c.free} free of {c.slots}"


def write_rows(writes: "Iterable[Write]", start: int) -> list[dict[str, object]]:
    """Return blocks that are written, for programs."""
    return [
        {
            "block": one.place,
            "offset_bytes": start * 512 + one.place * 4096,
            "home": one.home,
            "sequence": one.sequence,
            "what": one.what,
        }
        for one in writes
    ]


def write_lines(writes: "Iterable[Write]") -> list[str]:
    """Return blocks that are written, for people."""
    return [
        f"  block {one.place}: {one.what}"
        + (f", for block {one.home}" if one.home not in (None, one.place) else "")
        + (f", sequence {one.sequence}" if one.home is not None else "")
        for one in writes
    ]


def both_lines(
    spare: "Sequence[Write]", main: "Sequence[Write]", where: "Place | None"
) -> list[str]:
    """Return blocks that would be written to a spare, and to main, for people."""
    tag = [f"and to {where.path}:", *write_lines(main)] if main and where else []
    return ["Would write:", *write_lines(spare), *tag]


def untaken(
    main: "Place | None", planned: "Sequence[Write]", taken: "Sequence[Write]"
) -> tuple[str, ...]:
    """Return a warning if main has not taken all of its tag."""
    missing = len(planned) - len(taken)
    if not missing or main is None:
        return ()
    return (f"{main.path} has not taken {missing} of {len(planned)} copies of its tag",)


def named(uuid: UUID | None, load: "Load") -> list[tuple[str, object]]:
    """Return the set that is meant, for people."""
    sb = load.superblock
    return [("set", sb.name or None if sb else None), ("uuid", uuid)]
