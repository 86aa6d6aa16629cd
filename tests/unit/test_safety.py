# SPDX-License-Identifier: GPL-2.0-only
"""Every reason to refuse, from facts alone."""

import errno
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

import pytest
from unit.areas import JUNK, OTHER, Disk, fresh, reseal, superblock

from dmremap.errors import Busy, DmRemapError, NotFound, Refused
from dmremap.host.blockdev import DeviceFacts, Signature, Use
from dmremap.ondisk import Tag, View, find
from dmremap.sets import safety
from dmremap.sets.safety import Area, Finding, Metadata, Override

SET = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")


def disk(name: str, minor: int, **changes: object) -> DeviceFacts:
    plain = DeviceFacts(
        path=f"/dev/{name}",
        name=name,
        devno=(8, minor),
        sectors=1 << 20,
        disk=(8, minor),
        components=frozenset({(8, minor)}),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


MAIN = disk("sda", 0)
SPARE = disk("sdb", 16)


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_good_pair_has_no_findings() -> None:
    assert codes(safety.check_usable(MAIN)) == []
    assert codes(safety.check_pair(MAIN, SPARE)) == []
    assert codes(safety.check_area(SPARE, Area(0, 1 << 20))) == []
    assert codes(safety.check_signatures(SPARE)) == []
    assert codes(safety.check_metadata(SPARE, Metadata())) == []
    assert codes(safety.check_blank("/dev/sdb", None, "the area")) == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (DeviceFacts("/dev/none", exists=False), "DMR-E302"),
        (DeviceFacts("/etc/passwd"), "DMR-E501"),
        (replace(MAIN, sectors=0), "DMR-E302"),
        (replace(MAIN, mounts=(Use("sda1", "/srv"),)), "DMR-E401"),
        (replace(MAIN, swaps=(Use("sda", "/dev/sda"),)), "DMR-E402"),
        (replace(MAIN, holders=(Use("sda", "dm-0 (vg-lv)"),)), "DMR-E403"),
        (replace(MAIN, exclusive=errno.EBUSY), "DMR-E404"),
        (replace(MAIN, exclusive=errno.EIO), "DMR-E103"),
        (replace(MAIN, read_only=True), "DMR-E502"),
        (replace(MAIN, zoned=True), "DMR-E517"),
        (replace(MAIN, logical=8192), "DMR-E517"),
    ],
)
def test_unusable(facts: DeviceFacts, code: str) -> None:
    found = list(safety.check_usable(facts))
    assert codes(found) == [code]
    assert facts.path in found[0].message
    assert found[0].override is Override.NEVER


def test_who_holds_it_is_said_once() -> None:
    busy = replace(MAIN, mounts=(Use("sda", "/a"), Use("sda2", "/b")), exclusive=errno.EBUSY)
    found = list(safety.check_usable(busy))
    assert codes(found) == ["DMR-E401"]
    assert found[0].message == "/dev/sda is mounted on /a, /b (sda2)"


def test_reading_only_needs_no_writable_device() -> None:
    assert codes(safety.check_usable(replace(MAIN, read_only=True), write=False)) == []


def test_same_device() -> None:
    alias = replace(MAIN, path="/dev/disk/by-id/x")
    assert codes(safety.check_pair(MAIN, alias)) == ["DMR-E506"]


def test_partition_of_the_other_either_way() -> None:
    part = disk("sda1", 1, disk=(8, 0))
    assert codes(safety.check_pair(MAIN, part)) == ["DMR-E507"]
    assert codes(safety.check_pair(part, MAIN)) == ["DMR-E507"]


def test_two_partitions_of_one_disk_do_not_overlap() -> None:
    one, two = disk("sda1", 1, disk=(8, 0)), disk("sda2", 2, disk=(8, 0))
    assert codes(safety.check_pair(one, two)) == []


def test_a_stack_on_the_other_either_way() -> None:
    mapped = disk("dm-0", 253, components=frozenset({(8, 253), (8, 0)}))
    assert codes(safety.check_pair(MAIN, mapped)) == ["DMR-E507"]
    assert codes(safety.check_pair(mapped, MAIN)) == ["DMR-E507"]


def test_two_volumes_of_one_disk_do_not_overlap() -> None:
    one = disk("dm-0", 253, components=frozenset({(8, 253), (8, 0)}))
    two = disk("dm-1", 254, components=frozenset({(8, 254), (8, 0)}))
    assert codes(safety.check_pair(one, two)) == []


def test_block_sizes() -> None:
    big = replace(SPARE, logical=4096)
    assert codes(safety.check_pair(MAIN, big)) == ["DMR-E508"]
    assert codes(safety.check_pair(replace(MAIN, logical=4096), big)) == []
    assert codes(safety.check_pair(replace(MAIN, logical=4096), SPARE)) == []


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        (Area(0, 259 * 8), []),
        (Area(4, 4096), ["DMR-E509"]),
        (Area(0, 258 * 8), ["DMR-E510"]),
        (Area(1 << 20, 0), ["DMR-E510"]),
        (Area(8, 1 << 20), ["DMR-E511"]),
        (Area(2 << 20, -(1 << 20)), ["DMR-E510"]),
    ],
)
def test_area(area: Area, expected: list[str]) -> None:
    assert codes(safety.check_area(SPARE, area)) == expected


def test_main_without_room() -> None:
    assert codes(safety.check_main_size(MAIN, 0)) == ["DMR-E512"]


def test_signatures_are_named_and_can_be_forced() -> None:
    held = replace(SPARE, signatures=(Signature("ext4", 1080, "home"), Signature("gpt", 512)))
    found = list(safety.check_signatures(held))
    assert [finding.message for finding in found] == [
        "/dev/sdb holds ext4 (home), at byte 1080",
        "/dev/sdb holds gpt, at byte 512",
    ]
    assert {finding.override for finding in found} == {Override.FORCE}


def test_force_does_not_reach_outside_of_the_area() -> None:
    held = replace(SPARE, signatures=(Signature("gpt", 512), Signature("ext4", (1 << 20) + 1080)))
    found = list(safety.check_outside(held, Area(2048, 1 << 18)))
    assert codes(found) == ["DMR-E503"]
    assert found[0].override is Override.NEVER


def test_metadata_of_another_set() -> None:
    tag = Tag(SET, "old", 1 << 20, 2048, 512)
    found = list(safety.check_metadata(MAIN, Metadata(tag=tag)))
    assert codes(found) == ["DMR-E504"]
    assert "'old'" in found[0].message
    found = list(safety.check_metadata(MAIN, Metadata(tag=replace(tag, fault="it is older"))))
    assert codes(found) == ["DMR-E504"]
    assert found[0].message.endswith(f"the main device of set {SET}")
    disk = fresh(sb=superblock(uuid=OTHER))
    found = list(safety.check_metadata(SPARE, Metadata(tag, find(View(disk, 0)))))
    assert codes(found) == ["DMR-E504", "DMR-E504"]
    assert "'attic'" in found[1].message


def test_metadata_of_a_set_that_cannot_be_used() -> None:
    newer, damaged = fresh(), fresh()
    for home in (0, 255):
        raw = bytearray(newer[home])
        raw[80] = 2  # the incompat word
        newer[home] = reseal(bytes(raw), home, home)
        damaged[home] = JUNK
    for disk, why in ((newer, "newer dm-remap"), (damaged, "no superblock")):
        (found,) = safety.check_metadata(SPARE, Metadata(loads=find(View(disk, 0))))
        assert (found.code, found.override) == ("DMR-E504", Override.FORCE)
        assert why in found.message


def test_an_unreadable_home_is_not_the_absence_of_a_set() -> None:
    for block in (0, 255):
        disk = Disk()
        disk.bad.add(block)
        found = list(safety.check_metadata(SPARE, Metadata(loads=find(View(disk, 0)))))
        assert codes(found) == ["DMR-E518"]
        assert found[0].override is Override.FORCE
    disk = Disk()
    disk.bad.add(130)
    assert codes(safety.check_metadata(SPARE, Metadata(loads=find(View(disk, 0))))) == []
    assert codes(safety.check_metadata(MAIN, Metadata(unreadable=True))) == ["DMR-E518"]


@pytest.mark.parametrize(
    ("area", "override"),
    [
        (None, Override.FORCE),
        (Area(0, 1 << 20), Override.FORCE),
        (Area(8, (1 << 20) - 8), Override.NEVER),
        (Area(0, 1 << 19), Override.NEVER),
    ],
)
def test_signatures_that_cannot_be_searched_for(area: Area | None, override: Override) -> None:
    assert codes(safety.check_searched(SPARE, Metadata(), area)) == []
    found = list(safety.check_searched(SPARE, Metadata(unsearched=4096), area))
    assert codes(found) == ["DMR-E518"]
    assert found[0].override is override


def test_a_set_somewhere_in_the_area() -> None:
    assert codes(safety.check_old_set("/dev/sdb", None)) == []
    found = list(safety.check_old_set("/dev/sdb", 1 << 20))
    assert codes(found) == ["DMR-E504"]
    assert "sector 2048" in found[0].message
    assert found[0].override is Override.FORCE


def test_two_names_of_one_medium() -> None:
    one, two = replace(MAIN, medium="disk 3 ab"), replace(SPARE, medium="disk 3 ab")
    assert codes(safety.check_pair(one, two)) == ["DMR-E506"]
    assert codes(safety.check_pair(two, one)) == ["DMR-E506"]
    assert codes(safety.check_pair(one, replace(two, medium="disk 3 cd"))) == []
    assert codes(safety.check_pair(one, replace(two, medium_start=1 << 20))) == []
    assert codes(safety.check_pair(one, replace(two, medium_start=(1 << 20) - 1))) == ["DMR-E506"]
    nameless = replace(MAIN, medium=""), replace(SPARE, medium="")
    assert codes(safety.check_pair(*nameless)) == []


def test_not_blank_and_unreadable_are_two_things() -> None:
    found = list(safety.check_blank("/dev/sdb", (4096, True), "the area"))
    assert codes(found) == ["DMR-E505"]
    assert found[0].override is Override.WIPE
    found = list(safety.check_blank("/dev/sdb", (4096, False), "the area"))
    assert codes(found) == ["DMR-E518"]
    assert found[0].override is Override.NEVER


def refused(**options: bool) -> DmRemapError | None:
    findings = [
        Finding("DMR-E505", "data", override=Override.WIPE),
        Finding("DMR-E503", "ext4", override=Override.FORCE),
    ]
    try:
        safety.refuse(findings, **options)
    except DmRemapError as err:
        return err
    return None


def test_what_overrides_what() -> None:
    plain, wiped = refused(), refused(wipe=True)
    assert isinstance(plain, Refused)
    assert plain.code == "DMR-E505"
    assert plain.__notes__ == ["also: ext4 [DMR-E503]"]
    assert wiped is not None
    assert wiped.code == "DMR-E503"
    assert refused(force=True) is None


def test_nothing_overrides_in_use() -> None:
    findings = [
        Finding("DMR-E503", "ext4", override=Override.FORCE),
        Finding("DMR-E401", "mounted"),
    ]
    with pytest.raises(Busy):
        safety.refuse(findings, wipe=True, force=True)
    with pytest.raises(NotFound):
        safety.refuse(safety.check_usable(DeviceFacts("/dev/none", exists=False)), force=True)
