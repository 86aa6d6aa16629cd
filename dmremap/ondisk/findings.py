# SPDX-License-Identifier: GPL-2.0-only
"""What a check of the metadata can find, each with a code, what it means and the next step.

A code never changes its meaning and is never used again for another one. C1xx needs nobody, C2xx
is put right by the next load or by `dmremapctl repair`, C3xx keeps the set from being started.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


class Severity(enum.IntEnum):
    """How bad a finding is; the exit code of `dmremapctl check` is the worst one."""

    INFO = 0
    REPAIRABLE = 1
    DAMAGED = 2


@dataclass(frozen=True, slots=True)
class FindingCode:
    """What a code means on any device."""

    title: str
    meaning: str
    next_step: str


_NOTHING: Final = "Nothing needs to be done."
_REPAIR: Final = (
    "The next start of the set puts it right; 'dmremapctl repair' does the same without a start."
)
_IMPORT: Final = (
    "Keep the device as it is. With a backup of the metadata see 'dmremapctl import --help'; "
    "without one start it read-only with the table option accept_stale, and copy the data off."
)

_CODES: dict[str, FindingCode] = {
    # C1xx: for information
    "DMR-C101": FindingCode(
        "copy on a stand-in",
        "A place of the spare refused a write, so a copy of the metadata lives on a stand-in.",
        "Both copies count as they are. Look at the spare's SMART values.",
    ),
    "DMR-C102": FindingCode(
        "left over from another set",
        "The first MiB still has a block of a set that was here before; no load looks at it.",
        _NOTHING,
    ),
    "DMR-C103": FindingCode(
        "lost blocks",
        "Blocks are mapped whose content was never recovered; they are errors until written.",
        "Start the set and write these blocks again from a backup.",
    ),
    "DMR-C104": FindingCode(
        "bad slots",
        "Slots of the spare refused their data and are used no more.",
        "Look at the spare's SMART values.",
    ),
    "DMR-C105": FindingCode(
        "in use",
        "A running set has the device, so copies may differ for a moment and for good reason.",
        "Stop the set and check again for an answer that lasts.",
    ),
    "DMR-C106": FindingCode(
        "unknown compatible features",
        "The superblock has bits in its compat word that this version does not know; it may "
        "ignore them.",
        _NOTHING,
    ),
    "DMR-C107": FindingCode(
        "replaced copy on a stand-in",
        "A stand-in holds a copy of which there is a newer one, or the same on another stand-in.",
        _NOTHING,
    ),
    "DMR-C108": FindingCode(
        "stand-in that says nothing",
        "A stand-in holds a whole block that stands for nothing in this set: it is free.",
        _NOTHING,
    ),
    "DMR-C109": FindingCode(
        "reserved blocks are not blank",
        "Blocks 17 to 127 hold something; this version neither reads nor writes them.",
        _NOTHING,
    ),
    "DMR-C110": FindingCode(
        "epoch was not compared",
        "Main was not looked at, so it is not known whether this spare is an older copy of itself.",
        "Attach the set's main, or name it with --main.",
    ),
    "DMR-C111": FindingCode(
        "bad place that was never used",
        "A stand-in that no copy was ever written to cannot be read, or holds something else. It "
        "hides nothing, and is not used where it cannot be read.",
        _NOTHING,
    ),
    # C2xx: a load puts it right
    "DMR-C201": FindingCode(
        "one copy is missing",
        "Of a block of the metadata only one copy is good.",
        _REPAIR,
    ),
    "DMR-C202": FindingCode(
        "copies are unequal",
        "One copy of a block is newer: a commit was cut between its two copies.",
        _REPAIR,
    ),
    "DMR-C203": FindingCode(
        "unreadable stand-in",
        "A stand-in that was used cannot be read or is torn; every block has another way to be "
        "known.",
        _REPAIR,
    ),
    "DMR-C204": FindingCode(
        "two entries of one block",
        "A move was cut: a block of main has two slots. The one of the higher generation counts, "
        "the other slot becomes bad.",
        _REPAIR,
    ),
    # C3xx: no load accepts it
    "DMR-C301": FindingCode(
        "no superblock",
        "Neither superblock can be used, and no stand-in has one.",
        "Keep the device as it is. With a backup of the metadata see 'dmremapctl import --help'.",
    ),
    "DMR-C302": FindingCode(
        "superblocks contradict each other",
        "Two superblocks have the same sequence and different content. Nobody may choose.",
        "Find out whether two devices were mixed up, and keep the device as it is.",
    ),
    "DMR-C303": FindingCode(
        "superblocks of two sets",
        "An area was formatted over another one, and both left a superblock.",
        "Find out which set was made last; the slots of the other one may be overwritten.",
    ),
    "DMR-C304": FindingCode(
        "superblock cannot be used",
        "The superblock is whole, and this version may not use it.",
        "If a newer dm-remap made it, use that one.",
    ),
    "DMR-C305": FindingCode(
        "format was not completed",
        "The superblock still says FORMATTING: the set was never in use.",
        "Create it again with --force.",
    ),
    "DMR-C306": FindingCode(
        "both copies are gone",
        "Of a block of the table no copy is left, so what it mapped would read as main has it.",
        _IMPORT,
    ),
    "DMR-C307": FindingCode(
        "what is left may be old",
        "Of a block no copy is left that is known to be the newest: a stand-in that cannot be "
        "read, or is torn, may hide a newer one.",
        _IMPORT,
    ),
    "DMR-C308": FindingCode(
        "superblock may be hidden",
        "Two of the stand-ins that only superblocks use cannot be read, and may hide both of its "
        "newer copies.",
        _IMPORT,
    ),
    "DMR-C309": FindingCode(
        "copies contradict each other",
        "Two copies of a block have the same sequence and different content. Nobody may choose.",
        "Find out whether two devices were mixed up, and keep the device as it is.",
    ),
    "DMR-C310": FindingCode(
        "mapped twice",
        "A block of main has two slots of the same generation. Nobody may choose.",
        "Keep the device as it is.",
    ),
    "DMR-C311": FindingCode(
        "area is cut off",
        "The device ends before the area does.",
        "Use the whole device: this is a truncated image, or another device than it was.",
    ),
    "DMR-C312": FindingCode(
        "only readable by this version",
        "The superblock has bits in its ro_compat word: this version may not write to the set.",
        "Use the version that made it, or start the set read-only.",
    ),
    "DMR-C313": FindingCode(
        "impossible sequence",
        "A block has a sequence of more than half of what there is. No set ever writes so many "
        "times, and soon nothing valid could be written over it.",
        "Somebody made this block up: find out who, and keep the device as it is.",
    ),
    "DMR-C314": FindingCode(
        "set has gone on elsewhere",
        "Another main or another spare has taken over. The metadata is whole, and older than what "
        "the set holds by now.",
        "Start the set with the disks that it uses now; 'dmremapctl list' shows them.",
    ),
    "DMR-C315": FindingCode(
        "made before the first release",
        "The metadata is of version 1, which was in no release and which this version cannot use.",
        "Save the data with the dm-remap that made it, then make the set anew.",
    ),
    "DMR-C316": FindingCode(
        "older copy of the spare",
        "Main was used with a later state of this spare, which is a copy, such as a snapshot or an "
        "image that was put back. What was mapped since would be read from main as it was before, "
        "and what was written to mapped blocks since is not here. Of an adopted main, which has no "
        "tag, it is this host that says so; where main was put back together with the spare "
        "nothing is missing.",
        "Start the set with the spare that it was used with last. If that is gone, "
        "'dmremapctl repair --accept-older-spare' takes this one, and says what is lost.",
    ),
    "DMR-C317": FindingCode(
        "main was used with another copy of the spare",
        "This spare and another copy of it were both in use, and main has what was written with "
        "the other one. Neither has all of it.",
        "Start the set with the spare that it was used with last. If that is gone, "
        "'dmremapctl repair --accept-older-spare' takes this one, and says what is lost.",
    ),
    "DMR-C318": FindingCode(
        "main does not fit",
        "Main carries the set's tag, and the tag or main's size contradicts what the spare says.",
        "Find out whether the disk is the set's, and keep both as they are.",
    ),
    "DMR-C319": FindingCode(
        "a tag in main's data",
        "An adopted main that is known by its size only has the tag of another set.",
        "If it is content of the data, 'dmremapctl repair SPARE --tag-is-content MAIN' records it.",
    ),
}

CODES: Mapping[str, FindingCode] = MappingProxyType(_CODES)
"""Every code of a check; `dmremapctl explain` prints them."""

_SEVERITY: Final = {"1": Severity.INFO, "2": Severity.REPAIRABLE, "3": Severity.DAMAGED}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. `blocks` are those of the area that it is about.

    `hint` is the next step where it is known better than for any device.
    """

    code: str
    message: str
    blocks: tuple[int, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        """Refuse a code that nobody could look up."""
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not a code of a check")

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return _SEVERITY[self.code[5]]

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return self.hint or CODES[self.code].next_step
