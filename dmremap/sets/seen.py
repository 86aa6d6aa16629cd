# SPDX-License-Identifier: GPL-2.0-only
"""The newest epoch of each adopted set that this host has seen.

A tagged main says itself with which epoch it was used last; on an adopted one there is nothing of
ours. So the host remembers it, and a spare that is an older copy of itself is refused here. What is
remembered is never ahead of the spare: it is read there, once both superblocks have it, for a good
spare would be refused as soon as the copy that is further cannot be read. It may be
behind, as an epoch also begins by itself, hourly; then an older copy is told from the spare later
than it could be, as with a tag that main did not take. Another host knows nothing of it.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Final
from uuid import UUID

from dmremap.errors import DmRemapError, Failure
from dmremap.host import durable
from dmremap.ondisk import BlockDevice, Epoch, Superblock, View, look, opened
from dmremap.ondisk.epoch import EPOCH_MAX

DIRECTORY: Final = Path("/var/lib/dmremap/epochs")
_BYTES_MAX: Final = 4096
_TRIES, _PAUSE = 3, 0.1


def path_of(uuid: UUID) -> Path:
    """Return where the epoch of a set is."""
    return DIRECTORY / f"{uuid}.json"


def parse(text: str) -> Epoch:
    """Return the epoch that a file holds, or raise ValueError.

    >>> parse('{"number": 7, "id": "00000000000000a5"}')
    Epoch(number=7, id=165)
    """
    try:
        raw = json.loads(text)
        epoch = Epoch(raw["number"], int(raw["id"], 16))
    except (TypeError, KeyError, RecursionError) as err:
        raise ValueError(f"expected a number and an id ({err})") from None
    if type(epoch.number) is not int or not 0 < epoch.number <= EPOCH_MAX:
        raise ValueError(f"{epoch.number!r} is not the number of an epoch")
    if not 0 < epoch.id < 1 << 64:
        raise ValueError(f"{raw['id']!r} is not the id of an epoch")
    return epoch


def render(epoch: Epoch) -> str:
    """Return what a file holds."""
    return json.dumps({"number": epoch.number, "id": f"{epoch.id:016x}"}) + "\n"


def last(uuid: UUID) -> Epoch | None:
    """Return the newest epoch of a set that was seen, None if none was."""
    path = path_of(uuid)
    try:
        # Not to wait for somebody who writes to a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            return parse(file.read(_BYTES_MAX).decode())
    except FileNotFoundError:
        return None
    except OSError as err:
        why = err.strerror or str(err)
    except ValueError as err:
        why = str(err)
    raise Failure(
        "DMR-E103",
        f"cannot read {path}, which says what epoch of the set was seen here last: {why}",
        hint="If it is damaged, remove it: then no older copy of the spare is told from it until "
        "the set was started once.",
    )


def _settled(spare: BlockDevice, start: int, uuid: UUID) -> Superblock | None:
    """Return the superblock that both copies have, None of a tagged set."""
    for _ in range(_TRIES):
        load = look(View(spare, start), uuid)
        if load.superblock and load.superblock.tagged:
            return None
        if load.superblock and load.blocks and load.blocks[0].settled:
            return load.superblock
        # Of a set that runs they may be read in the middle of a commit.
        time.sleep(_PAUSE)
    raise Failure(
        "DMR-E103",
        f"{spare.path}: the superblocks of the set cannot be read, or are not equal",
        hint="Look with 'dmremapctl check'.",
    )


def remember(spare: BlockDevice, start: int, uuid: UUID) -> None:
    """Remember the epoch that both superblocks on a spare have, if its main has no tag.

    Raise if they cannot be read or differ, or it cannot be written.
    """
    sb = _settled(spare, start, uuid)
    if sb is None:
        return
    before = None
    with contextlib.suppress(Failure):  # what is damaged is replaced
        before = last(uuid)
    if before and before.number >= sb.epoch.number:
        return
    path = path_of(uuid)
    try:
        durable.replace(path, render(sb.epoch))
    except OSError as err:
        raise Failure(
            "DMR-E103",
            f"cannot write {path}: {err.strerror}",
            hint="Make room there, or make the directory writable.",
        ) from None


def learn(name: str, spare: str, start: int, uuid: UUID) -> tuple[str, ...]:
    """Remember the epoch of a set that is used here; return what has to be said of that."""
    try:
        with opened(spare) as device:
            remember(device, start, uuid)
    except DmRemapError as err:
        return (
            f"an older copy of {name}'s spare cannot be told from the spare here: {err.message}",
        )
    return ()
