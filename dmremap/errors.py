# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong: exit codes, the error classes, and the table of all error codes.

The hundreds of a code are the exit code of the command that fails with it, so a class and its
codes cannot disagree. Every code has a default next step; an error may bring a better one.
"""

import enum
from dataclasses import dataclass
from typing import Any, ClassVar


class Exit(enum.IntEnum):
    """Exit codes of dmremapctl."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    BUSY = 4
    REFUSED = 5
    PERMISSION = 6
    KERNEL = 7
    PARTIAL = 8


@dataclass(frozen=True, slots=True)
class Code:
    """What is known about an error code, whatever the device."""

    title: str
    meaning: str
    action: str


CODES: dict[str, Code] = {
    # 1xx: failures
    "DMR-E100": Code(
        "internal error",
        "The control plane met a condition that it does not expect.",
        "Please report it, with what 'dmremapctl --debug' prints for the same command.",
    ),
    "DMR-E101": Code(
        "a helper program failed",
        "A program that dmremapctl runs ended with an error.",
        "Read what the program said; run it by hand to see more.",
    ),
    "DMR-E102": Code(
        "a helper program did not finish",
        "A program that dmremapctl runs was killed at its deadline; a device may be hanging.",
        "Look at the kernel log for a device that does not answer.",
    ),
    "DMR-E103": Code(
        "input/output error",
        "A device could not be read or written where the metadata is.",
        "Look at the kernel log for the device, and use another spare if it is failing.",
    ),
    "DMR-E104": Code(
        "undoing failed too",
        "A command failed half-way and could not take back everything that it had done.",
        "The message lists what is left; remove it by hand.",
    ),
    "DMR-E105": Code(
        "udev did not confirm",
        "udevd did not say in time that it has processed a device. The device itself works.",
        "See 'udevadm settle' and the log of systemd-udevd.",
    ),
    "DMR-E106": Code(
        "answer not understood",
        "The kernel or a program answered in a form that this version does not know.",
        "Check with 'dmremapctl version' that module and control plane belong together.",
    ),
    "DMR-E107": Code(
        "self test failed",
        "A step of the self test did not do what it should.",
        "Read the step's message and the kernel log.",
    ),
    "DMR-E108": Code(
        "output could not be written",
        "What the command had to say could not be written to where its output goes.",
        "Whether it did its work is seen with 'dmremapctl list'.",
    ),
    "DMR-E109": Code(
        "interrupted",
        "The command was stopped by a signal. What it had begun was taken back, or done by then.",
        "Run it again; 'dmremapctl list' shows what is there.",
    ),
    "DMR-E110": Code(
        "something else writes to the spare",
        "A block of the metadata of a running set is newer than what the set has written. "
        "Something else writes to its spare: another machine, or another path to the same disk.",
        "Find out what it is and stop it. Then stop the set, and look with 'dmremapctl check' "
        "before it is started again.",
    ),
    # 2xx: usage
    "DMR-E201": Code(
        "wrong usage",
        "The command line is not valid.",
        "See the command's --help.",
    ),
    "DMR-E202": Code(
        "confirmation needed",
        "The command asks before it writes, and there is no terminal to ask on.",
        "Add --yes, or look first with --dry-run.",
    ),
    "DMR-E203": Code(
        "bad name",
        "A set's name is 1 to 127 bytes of printable text without '/' and '\\'.",
        "Choose another name.",
    ),
    "DMR-E204": Code(
        "unknown code",
        "There is no such error or health code.",
        "Run 'dmremapctl explain' to list all.",
    ),
    # 3xx: not found
    "DMR-E301": Code(
        "program missing",
        "A program that dmremapctl needs is not installed.",
        "Install the package that has it (util-linux, kmod, udev).",
    ),
    "DMR-E302": Code(
        "no such device",
        "The path does not exist.",
        "Check the path; 'lsblk' lists the block devices.",
    ),
    "DMR-E303": Code(
        "no such set",
        "There is no set of this name or uuid.",
        "Run 'dmremapctl list'.",
    ),
    "DMR-E304": Code(
        "spare not found",
        "No block device carries the superblock of this set.",
        "Attach the spare, or name it with --spare (and --spare-start if it is not at 0).",
    ),
    "DMR-E305": Code(
        "main not found",
        "No block device is the main device of this set.",
        "Attach the disk, or name it with --main.",
    ),
    "DMR-E306": Code(
        "no such device-mapper device",
        "The kernel has no device-mapper device of this name.",
        "Run 'dmremapctl list'; 'dmremapctl assemble' starts a set that is not running.",
    ),
    "DMR-E307": Code(
        "nothing of dm-remap",
        "The device or image has no metadata of a set. An adopted main device never has any.",
        "Give a set's spare, and the sector at which the area begins if that is not 0; "
        "'dmremapctl list' looks at every device.",
    ),
    "DMR-E308": Code(
        "a library is missing",
        "A library or a Python package that dmremapctl needs is not installed, or does not fit.",
        "Install what the message names; libdevmapper is in the package libdevmapper1.02.1 of "
        "Debian. Of a source tree build the extensions anew, for this Python.",
    ),
    # 4xx: busy
    "DMR-E401": Code(
        "mounted",
        "The device, or a partition of it, is mounted.",
        "Unmount it first.",
    ),
    "DMR-E402": Code(
        "used as swap",
        "The device, or a partition of it, is swap space in use.",
        "Run swapoff first.",
    ),
    "DMR-E403": Code(
        "held by another device",
        "Another block device (LVM, md, dm-crypt, multipath, another set) sits on this one.",
        "Stop the holder first, or use the holder itself.",
    ),
    "DMR-E404": Code(
        "opened exclusively",
        "Some program or file system in the kernel has the device open exclusively.",
        "Find it with 'fuser -v' or 'lsof' and stop it.",
    ),
    "DMR-E405": Code(
        "set is in use",
        "The set's device is open: mounted, held by another device, or opened by a program.",
        "Unmount it or stop the program. With --deferred it goes when its last user closes it.",
    ),
    "DMR-E406": Code(
        "name or uuid is taken",
        "A device-mapper device of this name or uuid exists already.",
        "Choose another name with --name, or remove the other device.",
    ),
    "DMR-E407": Code(
        "another command is running",
        "Another dmremapctl that changes something holds the lock.",
        "Wait for it, or give a longer --lock-timeout.",
    ),
    "DMR-E408": Code(
        "module is in use",
        "Devices that use the target still exist.",
        "Remove them first ('dmremapctl remove').",
    ),
    "DMR-E409": Code(
        "busy",
        "The kernel says that the device is busy.",
        "See who uses it with 'lsblk' and 'fuser -v', and try again.",
    ),
    "DMR-E410": Code(
        "set runs from other devices",
        "A set runs once. These devices are other names of its disks, or copies of them.",
        "Use the set as it runs, or stop it first with 'dmremapctl remove'.",
    ),
    "DMR-E411": Code(
        "set is running",
        "What a person chose for a set is written to its spare before it starts, and counts from "
        "then on.",
        "Stop the set with 'dmremapctl remove', then start it with these options.",
    ),
    # 5xx: refused
    "DMR-E501": Code(
        "not a block device",
        "Sets are made of block devices only.",
        "For an image file make a loop device with 'losetup --find --show FILE'.",
    ),
    "DMR-E502": Code(
        "read-only device",
        "The kernel does not allow writes to this device.",
        "See 'blockdev --getro'; a disk that has failed may have gone read-only.",
    ),
    "DMR-E503": Code(
        "device holds something",
        "A file system, partition table or other signature was recognised.",
        "Use another device, or --force to destroy what is there. 'adopt' keeps main's data.",
    ),
    "DMR-E504": Code(
        "belongs to another set",
        "The device carries metadata of a dm-remap set.",
        "Bring that set back with 'dmremapctl assemble', or use --force to destroy it.",
    ),
    "DMR-E505": Code(
        "not blank",
        "The place where metadata or slots would go does not read as zero.",
        "Check what it is; --wipe allows to overwrite it.",
    ),
    "DMR-E506": Code(
        "main and spare are the same device",
        "A spare on the failing device itself is no spare.",
        "Use another device as spare.",
    ),
    "DMR-E507": Code(
        "main and spare overlap",
        "One of the two devices contains the other.",
        "Use devices that share no sector.",
    ),
    "DMR-E508": Code(
        "spare has bigger blocks than main",
        "A slot holds one logical block of main, so the spare must be able to write it alone.",
        "Use a spare with logical blocks no larger than main's.",
    ),
    "DMR-E509": Code(
        "area is not aligned",
        "The area on the spare starts at a multiple of 8 sectors.",
        "Change --spare-start.",
    ),
    "DMR-E510": Code(
        "area is too small",
        "An area needs its first MiB, two table blocks and at least one block of slots.",
        "Give it more room.",
    ),
    "DMR-E511": Code(
        "area lies outside of the spare",
        "--spare-start plus --spare-size is more than the spare has.",
        "Change --spare-start or --spare-size.",
    ),
    "DMR-E512": Code(
        "main is too small",
        "Main has no room for its tag and any data.",
        "Use a larger device.",
    ),
    "DMR-E513": Code(
        "wrong main device",
        "The device is not the main device that the set's superblock names.",
        "Check the cabling and 'dmremapctl list'; never start a set on another disk.",
    ),
    "DMR-E514": Code(
        "metadata is damaged or contradicts itself",
        "No choice between the copies can be made without guessing.",
        "Keep both disks as they are and look with 'dmremapctl check'.",
    ),
    "DMR-E515": Code(
        "format was not completed",
        "The superblock still says FORMATTING: the set was never in use.",
        "Create it again with --force.",
    ),
    "DMR-E516": Code(
        "main cannot be told apart",
        "The set records only the size of its main device, which is not enough to choose a disk.",
        "Name the disk with --main.",
    ),
    "DMR-E517": Code(
        "unsupported device",
        "Zoned devices, and logical blocks other than 512 to 4096 bytes, are not supported.",
        "Use another device.",
    ),
    "DMR-E518": Code(
        "unreadable",
        "A place that must be blank cannot be read, and unreadable is not blank.",
        "Use another device, or --force to overwrite whatever is there.",
    ),
    "DMR-E519": Code(
        "refused by the kernel",
        "The target refused the table line; the message has the kernel's own reason.",
        "Follow the reason given.",
    ),
    "DMR-E520": Code(
        "the answer was no",
        "The question was not answered with yes, so nothing was done.",
        "Run it again when you are sure.",
    ),
    "DMR-E521": Code(
        "same set twice",
        "Two devices carry the superblock of one set; one is a copy of the other.",
        "Take the copy away, or name the right one with --spare.",
    ),
    "DMR-E522": Code(
        "this is a main device",
        "What a set knows stands on its spare; its main device has no more than a tag.",
        "Give the spare. 'dmremapctl list' says which one it is.",
    ),
    "DMR-E523": Code(
        "backup cannot be used",
        "The file is no backup of a set's metadata, is damaged, or needs a newer version.",
        "Give another backup.",
    ),
    "DMR-E524": Code(
        "backup of another geometry",
        "The set on the device has other segments, units or sizes than the set in the backup.",
        "Give a backup that was made after the set was made or grown the last time.",
    ),
    "DMR-E525": Code(
        "file exists",
        "A backup is not written over a file that exists.",
        "Choose another name, or use --force to replace the file.",
    ),
    "DMR-E526": Code(
        "backup may be old",
        "Blocks are gone that may have been written after the backup was made. What was mapped "
        "since then would read as main has it, which is old data.",
        "If there is no newer backup, --force takes this one. Then check the data on the set.",
    ),
    "DMR-E527": Code(
        "nothing to grow by",
        "The spare has no room behind the set's area, or less than a slot and its tables take.",
        "Make the spare longer (its partition or volume), or give a larger --by or --to.",
    ),
    "DMR-E528": Code(
        "set cannot grow",
        "A set has 32 segments, one more each time it grows, and 16777216 slots at most, and its "
        "device has one target.",
        "Make a new set with a larger spare and move the data.",
    ),
    "DMR-E529": Code(
        "set is read-only",
        "A set that is started read-only, or whose spare refuses metadata, is left as it is.",
        "See 'dmremapctl health' for the reason; start the set again for writing.",
    ),
    "DMR-E530": Code(
        "set has gone on elsewhere",
        "Another main or another spare has taken over from this one, which must not be started.",
        "Start the set with the disks that it uses now; 'dmremapctl list' shows them.",
    ),
    "DMR-E531": Code(
        "not the spare that main was used with",
        "Main's tag, or for an adopted main what this host has seen, says that the spare is an "
        "older copy of itself, or that another copy of it was in use. What was mapped since would "
        "be read as it was before.",
        "Look with 'dmremapctl check', which names the next step.",
    ),
    "DMR-E532": Code(
        "no epoch is left",
        "Epochs are counted up to 4611686018427387904, which no set reaches by itself.",
        "Start the set read-only if it can be started, copy the data off, and make a new set.",
    ),
    "DMR-E533": Code(
        "main has lost its tag",
        "No copy of the tag can be read on the main device, and nothing else says for certain that "
        "it is the set's: neither that a copy cannot be read, nor the disk's id, or its first MiB "
        "holds something else.",
        "If it is the set's main, 'dmremapctl repair SPARE --retag MAIN' writes the tag again.",
    ),
    "DMR-E534": Code(
        "a tag in main's data",
        "An adopted main device that is known by its size only has the tag of a set. It may be the "
        "main of that set, or the tag may be content, as of a set that was made on this one.",
        "If it is content, 'dmremapctl repair SPARE --tag-is-content MAIN' records that.",
    ),
    # 6xx: permission
    "DMR-E601": Code(
        "root needed",
        "Device-mapper and block devices are root's.",
        "Run it as root.",
    ),
    # 7xx: kernel or module
    "DMR-E701": Code(
        "no device-mapper",
        "The kernel has no device-mapper, or its control node is missing.",
        "Run 'modprobe dm-mod'.",
    ),
    "DMR-E702": Code(
        "target 'remap' is missing",
        "The kernel module dm_remap is not loaded.",
        "Run 'dmremapctl module load'.",
    ),
    "DMR-E703": Code(
        "module not found",
        "There is no dm_remap module for the running kernel.",
        "Build it with this kernel's headers (Debian's are in linux-headers-amd64) and install it, "
        "or name the file with --file.",
    ),
    "DMR-E704": Code(
        "module cannot be loaded",
        "The kernel refused the module.",
        "See the kernel log: another kernel's module, or a signature is required.",
    ),
    "DMR-E705": Code(
        "kernel error",
        "A device-mapper call failed.",
        "Read the kernel's reason in the message, or in the kernel log.",
    ),
    "DMR-E706": Code(
        "module cannot be unloaded",
        "The kernel refused to unload the module.",
        "See the kernel log.",
    ),
    "DMR-E707": Code(
        "module is too old",
        "The kernel module does not know what this version of dmremapctl asks of it.",
        "Install the module of this version; 'dmremapctl version' shows both. Stop all sets, then "
        "'dmremapctl module unload' and 'dmremapctl module load'.",
    ),
    # 8xx: partial
    "DMR-E801": Code(
        "only some of it was done",
        "Of several sets or steps, some failed.",
        "The message and the data say which; fix them and run the command again.",
    ),
    "DMR-E802": Code(
        "no place for a copy of the metadata",
        "A copy of the set's metadata is gone, and neither its place on the spare nor a stand-in "
        "takes it. The set goes on. When the other copy of the block goes too, or has gone, the "
        "set cannot be started any more once it is stopped.",
        "Copy the data to another disk while the set runs, and make a new set with another spare.",
    ),
}


class DmRemapError(Exception):
    """An error with a code, a sentence and a next step."""

    exit: ClassVar[Exit] = Exit.FAILURE

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        """Keep the parts; the hint defaults to the action in the table."""
        if code not in CODES or int(code[5]) != self.exit:
            raise ValueError(f"{code} is not a code of {type(self).__name__}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = CODES[code].action if hint is None else hint
        self.errno: int | None = None
        """What the kernel returned, where a device-mapper call failed."""

    def __str__(self) -> str:
        """Return the sentence with its code."""
        return f"{self.code}: {self.message}"

    @property
    def notes(self) -> list[str]:
        """What else stands in the way, and what could not be undone."""
        return list(getattr(self, "__notes__", ()))

    def as_dict(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit": int(self.exit),
            "notes": self.notes,
        }


class Failure(DmRemapError):
    """Something that should have worked did not."""

    exit = Exit.FAILURE


class Interrupted(Failure):
    """A signal stopped the command, which ends with 130, as programs do that SIGINT ends."""

    def as_dict(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        return {**super().as_dict(), "exit": 130}


class Usage(DmRemapError):
    """The caller asked for something that has no meaning."""

    exit = Exit.USAGE


class NotFound(DmRemapError):
    """A device, set or program does not exist."""

    exit = Exit.NOT_FOUND


class Busy(DmRemapError):
    """Something is in use. Nothing overrides this."""

    exit = Exit.BUSY


class Refused(DmRemapError):
    """It could be done, but it would do harm."""

    exit = Exit.REFUSED


class PermissionDenied(DmRemapError):
    """Only root may do this."""

    exit = Exit.PERMISSION


class KernelError(DmRemapError):
    """The kernel or its module does not do what is asked of it."""

    exit = Exit.KERNEL


class Partial(DmRemapError):
    """Some of several things failed."""

    exit = Exit.PARTIAL


_BY_EXIT: dict[int, type[DmRemapError]] = {
    cls.exit: cls
    for cls in (Failure, Usage, NotFound, Busy, Refused, PermissionDenied, KernelError, Partial)
}


def error(code: str, message: str, *, hint: str | None = None) -> DmRemapError:
    """Return an error of the class that the code belongs to."""
    return _BY_EXIT[int(code[5])](code, message, hint=hint)
