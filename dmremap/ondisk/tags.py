# SPDX-License-Identifier: GPL-2.0-only
"""Write the tag of a main that has one already, so that a cut leaves the old tag or the new one."""

from collections.abc import Mapping
from typing import Final

from dmremap.ondisk.area import newest_tag
from dmremap.ondisk.layout import TAG_BLOCKS, Tag, pack_tag
from dmremap.ondisk.mend import Write, Writer

_FAILURES: Final = 2  # after so many it is given up: each may take a failing disk minutes


def renew_tag(copies: Mapping[int, Tag], tag: Tag, write: Writer) -> list[Write]:
    """Write every copy, each durable before the next; return those that main took.

    `copies` is what is there. The only one that holds the newest epoch must not be torn by a cut
    before there is another. Where several do, and agree, they come first, for the others may be
    places that fail; next_tag() in the kernel.
    """
    newest = newest_tag(copies.values())
    last = newest.epoch.number if newest else 0
    new = {place for place, copy in copies.items() if copy.epoch.number == last}
    agreed = newest is not None and not newest.fault
    left = list(TAG_BLOCKS)
    written: list[Write] = []
    failed = 0
    while left and failed < _FAILURES:
        first = bool(written) or (agreed and len(new) > 1)
        place = next((home for home in left if (home in new) is first), left[0])
        left.remove(place)
        data = pack_tag(tag, place)
        if write(place, data):
            what = f"main's tag, copy {TAG_BLOCKS.index(place) + 1}"
            written.append(Write(place, place, tag.epoch.number, what, data))
        else:
            new.discard(place)
            failed += 1
    return written
