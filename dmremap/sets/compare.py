# SPDX-License-Identifier: GPL-2.0-only
"""What main's tag says of a spare that is looked at: the set as it was left, or an older copy.

Main is searched for if nobody names it. Only a main with the set's own tag counts. Its tag is read
first and the superblocks second, or an epoch that begins meanwhile would look like an older spare.
An adopted main has no tag: for it stands what this host has seen of the set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dmremap.dm.lines import RemapTable
from dmremap.errors import Busy, DmRemapError, Refused
from dmremap.host import blockdev
from dmremap.ondisk import (
    BlockDevice,
    Epoch,
    Superblock,
    Tag,
    View,
    look,
    newest_tag,
    opened,
    read_tags,
)
from dmremap.ondisk.epoch import OLDER, PARTED, UNFIT, judge_main, judge_seen
from dmremap.ondisk.findings import Finding
from dmremap.ondisk.load import Load, Refusal
from dmremap.sets import discover, seen

_VERDICTS = {OLDER: "older_spare", PARTED: "parted"}


@dataclass(frozen=True, slots=True)
class Main:
    """A set's main, if one is known, or `why` not; `given`: somebody named it."""

    path: str | None
    why: str = ""
    given: bool = False


@dataclass(frozen=True, slots=True)
class MainTag:
    """The good copies of the tag on a set's main; without any `why` says what is in the way.

    `seen` is the epoch that this host has seen last of a set whose main has none; `lost` says that
    there is one, and it cannot be read.
    """

    main: Main
    sectors: int = 0
    copies: Mapping[int, Tag] = field(default_factory=dict)
    seen: Epoch | None = None
    lost: bool = False
    why: str = ""

    @property
    def tag(self) -> Tag | None:
        """The tag that counts."""
        return newest_tag(self.copies.values())

    @property
    def epoch(self) -> Epoch | None:
        """The epoch with which main was used last, as far as is known."""
        return self.tag.epoch if self.tag else self.seen


@dataclass(frozen=True, slots=True)
class Compared:
    """What a tag says of a spare; `problem` is why a load refuses the two.

    Where it was the spare that was looked for `spare` is what was found, or `without` why none was.
    """

    found: MainTag
    problem: Refusal | None = None
    spare: str | None = None
    without: str = ""

    @property
    def main(self) -> str | None:
        """The main whose tag was read."""
        return self.found.main.path if self.found.copies else None

    @property
    def tag(self) -> Tag | None:
        """Its tag."""
        return self.found.tag

    @property
    def seen(self) -> Epoch | None:
        """The epoch that this host has seen last of a set whose main has no tag."""
        return self.found.seen

    @property
    def verdict(self) -> str:
        """One word, for programs."""
        if self.found.epoch is None or self.without:
            return "not_compared"
        return _VERDICTS.get(self.problem.code, "unfit") if self.problem else "same"

    @property
    def reason(self) -> str | None:
        """Why it is not the set as it was left, or why that is not known."""
        if self.problem:
            return self.problem.reason
        return self.without or self.found.why or None


def find_main(
    sb: Superblock, *, given: str | None = None, runs: str | None = None, search: bool = True
) -> Main:
    """Return the main of a set: the one that is given, or that it runs from, or is found."""
    if not sb.tagged:
        return Main(None, "main was adopted and has no tag")
    if given or runs:
        return Main(given or runs, given=bool(given))
    if not search:
        return Main(None, "an image does not say where its main is")
    mains = discover.tagged_mains(sb.uuid)
    if len(mains) > 1:
        paths = ", ".join(facts.path for facts in mains)
        return Main(None, f"several devices carry the set's tag: {paths}")
    return Main(mains[0].path) if mains else Main(None, "no block device carries the set's tag")


def tags_on(device: BlockDevice, main: Main, sb: Superblock) -> MainTag:
    """Read the tag on a device that may be the set's main; one that was given has to be."""
    copies = read_tags(View(device, 0))
    tag = newest_tag(copies.values())
    if tag is not None and tag.uuid == sb.uuid:
        return MainTag(main, device.size // 512, copies)
    why = f"{device.path} carries no tag of the set"
    if main.given:
        raise Refused("DMR-E513", f"{device.path} carries no tag of set {sb.name!r} ({sb.uuid})")
    return MainTag(main, why=why)


def read_main(main: Main, sb: Superblock) -> MainTag:
    """Read the tag of a set's main, before its superblocks are read."""
    if not sb.tagged:
        return _read_seen(main, sb)
    if main.path is None:
        return MainTag(main, why=main.why)
    try:
        if blockdev.suspended(blockdev.facts(main.path, look_inside=False)):
            # Reading it would wait until it is resumed, perhaps for ever.
            raise Busy("DMR-E409", f"{main.path} is suspended", hint="Resume it first.")
        with opened(main.path) as device:
            return tags_on(device, main, sb)
    except DmRemapError as err:
        if main.given:
            raise
        return MainTag(main, why=f"{main.path}: {err.message}")


def _read_seen(main: Main, sb: Superblock) -> MainTag:
    try:
        epoch = seen.last(sb.uuid)
    except DmRemapError as err:
        return MainTag(main, lost=True, why=f"{main.why}, and {err.message}")
    why = f"{main.why}, and this host has not seen the set before" if epoch is None else ""
    return MainTag(main, seen=epoch, why=why)


def compare(sb: Superblock, found: MainTag, spare: str, start: int) -> Compared:
    """Say what a tag that was read before says of a superblock."""
    problem = None
    if found.copies:
        problem = judge_main(sb, found.copies, found.sectors)
    elif found.seen:
        problem = judge_seen(sb, found.seen)
    if problem:
        given = found.main.path if found.main.given else None
        problem = discover.with_way_out(problem, spare, start, given)
    return Compared(found, problem)


def compare_main(found: MainTag, tag: Tag, *, runs: RemapTable | None, search: bool) -> Compared:
    """Find the spare of a main whose tag was read, and compare the two.

    `runs` is the line of the table that uses it.
    """
    if not runs and not search:
        return Compared(found, without="an image does not say where its spare is")
    start = runs.spare_start if runs else tag.spare_start
    where = f"has the set's superblock at sector {start}"
    paths = (
        [blockdev.table_path(runs.spare)]
        if runs
        else [facts.path for facts in discover.spares(tag.uuid, start)]
    )
    if len(paths) != 1:
        few = f"several devices {where.replace('has', 'have')}: {', '.join(paths)}"
        return Compared(found, without=few if paths else f"no block device {where}")
    (spare,) = paths
    try:
        if blockdev.suspended(blockdev.facts(spare, look_inside=False)):
            # Reading it would wait until it is resumed, perhaps for ever.
            return Compared(found, spare=spare, without="it is suspended")
        with opened(spare) as device:
            sb = look(View(device, start), tag.uuid).superblock
    except DmRemapError as err:
        return Compared(found, spare=spare, without=err.message)
    if sb is None:
        return Compared(found, spare=spare, without="it has no superblock that can be used")
    return replace(compare(sb, found, spare, start), spare=spare)


def unlike(sb: Superblock, found: MainTag) -> None:
    """Refuse a device that only resembles main: nothing is written there."""
    if not found.copies:
        return
    problem = judge_main(sb, found.copies, found.sectors)
    why = problem.reason if problem and problem.code == UNFIT else ""
    for size in (found.sectors, *(copy.main_sectors for copy in found.copies.values())):
        if size != sb.main_sectors and not why:
            why = f"it has {size} sectors, and main has {sb.main_sectors}"
    if why:
        raise Refused(
            "DMR-E513", f"{found.main.path} is not quite the main of set {sb.name!r}: {why}"
        )


def note(load: Load, compared: Compared) -> None:
    """Add to a load what is found when its set is compared with main."""
    problem, sb = compared.problem, load.superblock
    if problem:
        load.refusals.append(problem)
        load.findings.append(Finding(problem.code, problem.reason, hint=problem.hint))
    elif sb and (compared.found.lost or (sb.tagged and not compared.found.copies)):
        load.findings.append(Finding("DMR-C110", compared.found.why))
    load.findings.sort(key=lambda finding: -finding.severity)
