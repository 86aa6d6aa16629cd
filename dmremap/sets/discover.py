# SPDX-License-Identifier: GPL-2.0-only
"""Sets on disk: where they are, which main they have, and why they could not be started."""

import contextlib
import errno
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from dmremap.errors import DmRemapError, NotFound, Refused
from dmremap.host import blockdev
from dmremap.host.blockdev import DeviceFacts, Devno
from dmremap.ondisk import (
    TAG_SECTORS,
    BlockDevice,
    Refusal,
    Superblock,
    Tag,
    View,
    find,
    look,
    lost_tags,
    newest_tag,
    opened,
    read_tag,
    read_tags,
    refused,
)
from dmremap.ondisk.epoch import OLDER, PARTED, UNFIT, judge_main, judge_seen
from dmremap.sets import identity, live, seen


@dataclass(frozen=True, slots=True)
class Found:
    """A set found on disk. `mains` may be its main, `problems` keep it from being started.

    `main_problems` says by path with which of them it cannot be started, and why. `tags` are those
    found on any device, by its path. `untagged` are disks that the set has recorded as its main and
    that do not have the tag that they should have.
    """

    superblock: Superblock
    spare: DeviceFacts
    spare_start: int
    mains: tuple[DeviceFacts, ...] = ()
    problems: tuple[Refusal, ...] = ()
    main_problems: Mapping[str, Refusal] = field(default_factory=dict)
    tags: Mapping[str, Tag] = field(default_factory=dict)
    untagged: tuple[DeviceFacts, ...] = ()

    @property
    def name(self) -> str:
        """The name that the superblock gives."""
        return self.superblock.name or f"remap-{str(self.superblock.uuid)[:8]}"

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Why it cannot be started, with the main that it has if there is no doubt about it."""
        if len(self.mains) != 1 or self.mains[0].path not in self.main_problems:
            return self.problems
        return (*self.problems, self.main_problems[self.mains[0].path])


def scan(spares: Sequence[tuple[str, int]] = (), warnings: list[str] | None = None) -> list[Found]:
    """Look for sets on the given spares (path, start sector), else on all block devices.

    Devices that cannot be read, and metadata that cannot be used, are passed over with a warning,
    which is added to `warnings`: a disk that fails must not keep others from being assembled. On a
    spare that was given they are errors.
    """
    warnings = [] if warnings is None else warnings
    tags: dict[str, Tag] = {}
    lost: set[str] = set()
    copies: dict[str, dict[int, Tag]] = {}
    sets: list[Found] = []
    everything: list[DeviceFacts] = []
    named = {blockdev.block_devno(path): start for path, start in spares}
    for facts in _readable(warnings):
        everything.append(facts)
        given = facts.devno in named
        start = named.get(facts.devno, 0)
        try:
            with opened(facts.path) as device:
                first = View(device, 0)
                area = View(device, start) if start else first
                loads = find(area) if given or not spares else ()
                copies[facts.path] = read_tags(first)
                if lost_tags(first):
                    lost.add(facts.path)
        except DmRemapError as err:
            if given:
                raise
            if not isinstance(err, NotFound):  # a drive without a medium is nothing to speak of
                warnings.append(f"{facts.path} was not looked at: {err.message}")
            continue
        tag = newest_tag(copies[facts.path].values())
        if tag is not None:
            tags[facts.path] = tag
        for load in loads:
            if load.superblock is not None:
                problems = tuple(load.refusals)
                # What is refused already would be refused to whoever accepts it, too.
                problems = problems or _older(load.superblock, facts, start, warnings)
                sets.append(Found(load.superblock, facts, start, problems=problems))
            elif load.refusals:
                useless = refused(facts.path, load.refusals)
                if given:
                    raise useless
                warnings.append(useless.message)
    sets = _topmost(sets)
    sets = [_with_mains(found, tags, lost, everything) for found in sets]
    return [replace(found, main_problems=_main_problems(found, copies)) for found in sets]


def _readable(warnings: list[str]) -> Iterator[DeviceFacts]:
    """Yield all block devices that may be a main or a spare."""
    known = blockdev.around()
    for directory in blockdev.all_devices():
        facts = blockdev.facts_of(blockdev.node(directory), directory, known=known)
        if facts.sectors < TAG_SECTORS or live.is_set(directory):
            continue
        if blockdev.suspended(facts):
            # Reading it would wait until it is resumed, perhaps for ever.
            warnings.append(f"{blockdev.label(directory)} is suspended and was not looked at")
            continue
        yield facts


def tagged_mains(uuid: UUID) -> list[DeviceFacts]:
    """Return the block devices that carry the tag of a set."""

    def is_one(device: BlockDevice) -> bool:
        tag = read_tag(View(device, 0))
        return tag is not None and tag.uuid == uuid

    return _devices(is_one)


def spares(uuid: UUID, start: int) -> list[DeviceFacts]:
    """Return the block devices that have a superblock of a set, where its area begins."""
    return _devices(lambda device: look(View(device, start), uuid).superblock is not None)


def _devices(is_one: Callable[[BlockDevice], bool]) -> list[DeviceFacts]:
    """Return the block devices that are what is looked for, and not those that they consist of."""
    devices: list[DeviceFacts] = []
    for facts in _readable([]):
        with contextlib.suppress(DmRemapError), opened(facts.path) as device:
            if is_one(device):
                devices.append(facts)
    return [facts for facts in devices if not _under(facts.devno, devices)]


def _main_problems(found: Found, copies: Mapping[str, Mapping[int, Tag]]) -> dict[str, Refusal]:
    sb = found.superblock
    out: dict[str, Refusal] = {}
    for facts in found.mains:
        problem = tag_in_data(found, facts)
        if sb.tagged and facts.path in found.tags:
            problem = judge_main(sb, copies[facts.path], facts.sectors)
        if sb.tagged and problem and problem.code != UNFIT:
            problem = _judge_again(found, facts, problem)
        if problem:
            out[facts.path] = with_way_out(problem, found.spare.path, found.spare_start)
    return out


def _older(
    sb: Superblock, spare: DeviceFacts, start: int, warnings: list[str]
) -> tuple[Refusal, ...]:
    """Say why the spare of an adopted main is refused, by what this host has seen of the set."""
    if sb.tagged:
        return ()
    try:
        epoch = seen.last(sb.uuid)
    except DmRemapError as err:
        warnings.append(err.message)
        return ()
    problem = judge_seen(sb, epoch) if epoch else None
    if problem and epoch:
        # What was seen has to be read first: the set may have been started meanwhile.
        with contextlib.suppress(DmRemapError), opened(spare.path) as device:
            now = look(View(device, start), sb.uuid).superblock
            problem = judge_seen(now, epoch) if now else problem
    return (with_way_out(problem, spare.path, start),) if problem else ()


def tag_in_data(found: Found, main: DeviceFacts) -> Refusal | None:
    """Say why an adopted main with a tag on it is refused. check_adopted() in the kernel."""
    tag = found.tags.get(main.path)
    if found.superblock.tagged or tag is None or identity.is_content(found.superblock, main, tag):
        return None
    return Refusal(
        errno.EINVAL,
        f"main has the tag of set {tag.set_name}, and no id says that it is this set's",
        "DMR-C319",
        hint="If it is that set's main, start that set. If the tag is content of this set's data: "
        + mend_command(found, "--tag-is-content", main.path),
    )


def _judge_again(found: Found, main: DeviceFacts, before: Refusal) -> Refusal | None:
    """Read the tag first and the superblocks second: they were read in any order.

    A set that was started meanwhile begins an epoch the other way round.
    """
    with contextlib.suppress(DmRemapError):
        with opened(main.path) as device:
            copies = read_tags(View(device, 0))
        with opened(found.spare.path) as device:
            sb = look(View(device, found.spare_start), found.superblock.uuid).superblock
        tag = newest_tag(copies.values())
        if sb and tag and tag.uuid == sb.uuid:
            return judge_main(sb, copies, main.sectors)
    return before


def with_way_out(problem: Refusal, spare: str, start: int, main: str | None = None) -> Refusal:
    """Return why main and spare are refused, with what to do as it can be typed."""
    if problem.code not in (OLDER, PARTED):
        return problem
    words = ["dmremapctl", "repair", "--accept-older-spare", spare]
    words += ["--start", str(start)] if start else []
    words += ["--main", main] if main else []
    return replace(
        problem,
        hint="Start the set with the spare that it was used with last. If that is gone, this takes "
        f"the one that is here, and says what is lost: {shlex.join(words)}",
    )


def _under(devno: Devno | None, devices: Sequence[DeviceFacts]) -> bool:
    return any(other.devno != devno and devno in other.components for other in devices)


def _topmost(sets: Sequence[Found]) -> list[Found]:
    """Leave out paths of a multipath device, legs of a mirror and the like."""
    return [
        found
        for found in sets
        if not _under(
            found.spare.devno,
            [other.spare for other in sets if other.superblock.uuid == found.superblock.uuid],
        )
    ]


def _with_mains(
    found: Found, tags: Mapping[str, Tag], lost: set[str], everything: Sequence[DeviceFacts]
) -> Found:
    """Add which devices may be a set's main."""
    sb = found.superblock
    untagged: list[DeviceFacts] = []
    if sb.tagged:
        candidates = [facts for facts in everything if identity.carries(sb, tags.get(facts.path))]
        bare = [facts for facts in everything if facts.path not in tags]
        candidates += [
            facts for facts in bare if facts.path in lost and identity.is_tagless_main(sb, facts)
        ]
        untagged = [
            facts for facts in bare if facts not in candidates and identity.matches_main(sb, facts)
        ]
    else:
        candidates = [facts for facts in everything if identity.matches_main(sb, facts)]
    mains = tuple(facts for facts in candidates if not _under(facts.devno, candidates))
    return replace(found, mains=mains, tags=tags, untagged=tuple(untagged))


def select(sets: Sequence[Found], names: Sequence[str]) -> list[Found]:
    """Return the sets of these names or uuids."""
    out: list[Found] = []
    for name in names:
        hits = [found for found in sets if name in (found.name, str(found.superblock.uuid))]
        if not hits:
            raise NotFound("DMR-E303", f"there is no set {name!r} on any block device")
        uuids = {found.superblock.uuid for found in hits}
        if len(uuids) > 1:
            raise Refused(
                "DMR-E521",
                f"several sets are called {name!r}: {', '.join(sorted(map(str, uuids)))}",
                hint="Name the set by its uuid.",
            )
        out += [found for found in hits if found not in out]
    return out


def mend_command(found: Found, option: str, main: str) -> str:
    """Return the repair that a set on disk needs, as it can be typed."""
    words = ["dmremapctl", "repair", found.spare.path, option, main]
    if found.spare_start:
        words += ["--start", str(found.spare_start)]
    return shlex.join(words)
