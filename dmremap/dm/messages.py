# SPDX-License-Identifier: GPL-2.0-only
"""Messages to the `remap` target, and its replies.

Pure, as the lines are: text in, frozen records out; what is missing or malformed is a `LineError`.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from dmremap.dm.words import LineError, choice, number

Obstacle = Literal["unreadable", "full", "failed"]
Scrubbed = Literal["written", "failed"]
SlotState = Literal["mapped", "lost", "bad", "doubt"]


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One slot that is not free.

    sector, sectors: of the mapped device; sector is None where the unit lies
    outside the target and for a bad slot, which holds no unit.
    """

    sector: int | None
    sectors: int
    slot: int
    state: SlotState
    generation: int

    @property
    def line(self) -> str:
        """The line as the kernel prints it."""
        sector = "-" if self.sector is None else self.sector
        return f"{sector} {self.sectors} {self.slot} {self.state} {self.generation}"


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """Sectors of the mapped device that main could not read."""

    sector: int
    sectors: int

    @property
    def line(self) -> str:
        """The line as the kernel prints it."""
        return f"{self.sector} {self.sectors}"


@dataclass(frozen=True, slots=True)
class ListPage:
    """A reply to `list`; next is the slot to go on from, None at the end."""

    entries: tuple[ListEntry, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class PendingPage:
    """A reply to `pending`; next is the sector to go on from, None at the end."""

    entries: tuple[PendingEntry, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class RemapReply:
    """A reply to `remap`: how far it came.

    done, total: units; those that were mapped before count as done.  obstacle:
    what is in the way of the next unit, None where only the time was over or
    everything is done.  `unreadable`: main does not read it; `full`: no slot is
    free; `failed`: the spare or its metadata could not be written.  sector: that
    unit's, of the mapped device; None where there is no obstacle.
    """

    done: int
    total: int
    obstacle: Obstacle | None = None
    sector: int | None = None

    @property
    def line(self) -> str:
        """The line as the kernel prints it."""
        line = f"done {self.done} of {self.total}"
        return line if self.obstacle is None else f"{line} {self.obstacle} {self.sector}"


@dataclass(frozen=True, slots=True)
class StopReply:
    """A reply to `stop`.

    epoch: number of the set's epoch, which has just begun.  tag: copies of main's tag that say
    so, 0 to 5.
    """

    epoch: int
    tag: int


@dataclass(frozen=True, slots=True)
class ScrubEntry:
    """A copy of a metadata block that was gone.

    copy: its number; first copy A of every metadata block is counted, then copy B.
    block: its home, in blocks of 4096 bytes of the area. `written`: it is there again, at home or
    on a stand-in; `failed`: no place takes it.
    """

    copy: int
    block: int
    result: Scrubbed

    @property
    def line(self) -> str:
        """The line as the kernel prints it."""
        return f"{self.copy} {self.block} {self.result}"


@dataclass(frozen=True, slots=True)
class ScrubPage:
    """A reply to `scrub`; next is the copy to go on from, None at the end."""

    entries: tuple[ScrubEntry, ...]
    next: int | None


def remap_message(sector: int, count: int, *, lost: bool = False) -> str:
    """The message that maps sectors of the mapped device, all of it whole units.

    lost: nothing is read, and what was on them counts as lost.
    """
    return f"remap {sector} {count}{' lost' if lost else ''}"


def list_message(start: int, count: int) -> str:
    """The message that asks for at most `count` slots, from slot `start` on."""
    return f"list {start} {count}"


def pending_message(start: int, count: int) -> str:
    """The message that asks for at most `count` ranges, from sector `start` on."""
    return f"pending {start} {count}"


def scrub_message(start: int, count: int) -> str:
    """The message that has at most `count` copies of metadata blocks read, from copy `start` on."""
    return f"scrub {start} {count}"


def _split_page(reply: str, expected: str) -> tuple[list[tuple[str, list[str]]], int | None]:
    """Split a paged reply into its lines, with the words of each, and where to go on.

    expected: a line of the reply, with a name for each word.
    """
    lines = [(" ".join(line.split()), line.split()) for line in reply.splitlines() if line.strip()]
    text, last = lines.pop() if lines else ("", [])
    if last == ["end"]:
        following = None
    elif len(last) == 2 and last[0] == "next":
        following = number(last[1], "next", text)
    else:
        # A reply that the kernel's buffer cut short must not pass for a full one.
        raise LineError(f"the reply ends with {text!r} and not with 'next <n>' or 'end'")
    for line, words in lines:
        if len(words) != len(expected.split()):
            raise LineError(f"expected {expected}, got {line!r}")
    return lines, following


def parse_list(reply: str) -> ListPage:
    """Parse the reply to `list`."""
    lines, following = _split_page(reply, "<sector> <sectors> <slot> <state> <gen>")
    entries = (
        ListEntry(
            sector=None if sector == "-" else number(sector, "sector", line),
            sectors=number(sectors, "sectors", line),
            slot=number(slot, "slot", line),
            state=cast("SlotState", choice(state, get_args(SlotState), "state", line)),
            generation=number(generation, "generation", line),
        )
        for line, (sector, sectors, slot, state, generation) in lines
    )
    return ListPage(tuple(entries), following)


def parse_pending(reply: str) -> PendingPage:
    """Parse the reply to `pending`."""
    lines, following = _split_page(reply, "<sector> <sectors>")
    entries = (
        PendingEntry(number(sector, "sector", line), number(sectors, "sectors", line))
        for line, (sector, sectors) in lines
    )
    return PendingPage(tuple(entries), following)


def parse_scrub(reply: str) -> ScrubPage:
    """Parse the reply to `scrub`."""
    lines, following = _split_page(reply, "<copy> <block> <result>")
    entries = (
        ScrubEntry(
            copy=number(copy, "copy", line),
            block=number(block, "block", line),
            result=cast("Scrubbed", choice(result, get_args(Scrubbed), "result", line)),
        )
        for line, (copy, block, result) in lines
    )
    return ScrubPage(tuple(entries), following)


def parse_remap(reply: str) -> RemapReply:
    """Parse the reply to `remap`."""
    words = reply.split()
    if len(words) not in (4, 6) or words[0] != "done" or words[2] != "of":
        raise LineError(f"expected done <units> of <units> [<obstacle> <sector>], got {reply!r}")
    done, total = number(words[1], "done", reply), number(words[3], "total", reply)
    if done > total:
        raise LineError(f"{done} units of {total} cannot be done, in {reply!r}")
    if len(words) == 4:
        return RemapReply(done, total)
    obstacle = choice(words[4], get_args(Obstacle), "obstacle", reply)
    return RemapReply(done, total, cast("Obstacle", obstacle), number(words[5], "sector", reply))


def parse_stop(reply: str) -> StopReply:
    """Parse the reply to `stop`."""
    words = reply.split()
    if len(words) != 4 or words[::2] != ["epoch", "tag"]:
        raise LineError(f"expected epoch <number> tag <copies>, got {reply!r}")
    return StopReply(number(words[1], "epoch", reply), number(words[3], "tag", reply))
