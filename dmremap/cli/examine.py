# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl examine"""

from typing import TYPE_CHECKING

import click

from dmremap.cli._meta import (
    compared_row,
    compared_words,
    epoch_row,
    finding_lines,
    finding_rows,
    load_row,
    load_words,
    place_of,
    slots_words,
    start_option,
)
from dmremap.cli.common import Result, fields, output_option, plain, size

if TYPE_CHECKING:
    from dmremap.ondisk.findings import Finding
    from dmremap.sets.compare import Compared
    from dmremap.sets.offline import Member


@click.command()
@click.argument("device")
@start_option
@output_option
def command(device: str, start: int) -> Result:
    """Say what DEVICE is: the spare or the main device of which set, in which state.

    DEVICE is a block device or a file with the image of one. Nothing is written. The exit code is
    0 if it belongs to a set, whatever its state; 3 if there is nothing of dm-remap on it. An
    adopted main device has nothing on it, and is recognised only while its set runs. Of a main
    device with a tag the spare is looked for, and compared.
    """
    place = place_of(device, start, "read block devices")
    from dmremap.sets import offline

    one = offline.member(place)
    data = _data(one)
    if one.role == "none":
        return Result(data, error=offline.not_ours(place.path, start, one.size, one.holds))
    warnings: tuple[str, ...] = ()
    if one.role == "spare" and one.tag is not None:
        warnings = (f"it also has the tag of a main device, of set {one.tag.uuid}",)
    return Result(data, lambda: _text(one), warnings=warnings)


def _data(one: "Member") -> dict[str, object]:
    load, tag = one.load, one.tag
    sb = load.superblock
    known: dict[str, object] | None = None
    if sb is not None:
        known = {
            "uuid": sb.uuid,
            "name": sb.name,
            "state": sb.state,
            "sequence": sb.seq,
            "unit_bytes": sb.unit,
            "area_sectors": sb.area_sectors,
            "segments": len(sb.segments),
            "created": sb.created,
            "kind": "tagged" if sb.tagged else "adopted",
            "main_sectors": sb.main_sectors,
            "main_offset_sectors": sb.main_offset,
            "main_serial": sb.main_serial,
            "main_id": sb.main_id,
            "data_start_sectors": sb.data_start,
            "data_sectors": sb.data_sectors,
            "epoch": epoch_row(sb.epoch),
            "before": epoch_row(sb.before),
            "superseded": sb.superseded,
            "predecessor": sb.predecessor,
            "predecessor_epoch": epoch_row(sb.predecessor_epoch),
            "content_tag": sb.content_tag,
            "spare_serial": sb.spare_serial,
            "errors": sb.errors,
            "remap_rate": sb.remap_rate,
        }
    spare = one.role == "spare"
    return {
        "device": one.place.path,
        "file": one.place.is_file,
        "size_bytes": one.size,
        "start_sectors": one.place.start,
        "role": one.role,
        "uuid": one.uuid,
        "running": one.running,
        "set": known,
        "tag": None
        if tag is None
        else {
            "uuid": tag.uuid,
            "name": tag.name,
            "main_sectors": tag.main_sectors,
            "data_start_sectors": tag.data_start,
            "unit_bytes": tag.unit,
            "spare_start_sectors": tag.spare_start,
            "spare_sectors": tag.spare_len,
            "epoch": None if tag.fault else epoch_row(tag.epoch),
            "fault": tag.fault or None,
        },
        "slots": load.counts if len(load.blocks) > 1 else None,
        "copies_away": load.away,
        "compared": compared_row(one.compared),
        "spare": one.compared.spare if one.compared else None,
        "load": load_row(load) if spare else None,
        "findings": finding_rows(_findings(one)),
        "holds": [
            {"type": held.type, "label": held.label, "offset_bytes": held.offset}
            for held in one.holds
        ],
    }


def _findings(one: "Member") -> "list[Finding]":
    """Return what is found of a spare, or of the one that a main belongs to."""
    if one.role == "spare":
        return one.load.findings
    from dmremap.ondisk.findings import Finding

    problem = one.compared.problem if one.compared else None
    return [Finding(problem.code, problem.reason, hint=problem.hint)] if problem else []


def _spare_words(one: "Compared | None") -> str | None:
    """Return where a main's spare is and what main's tag says of it, for people."""
    if one is None:
        return None
    if one.spare is None:
        return f"not known: {one.reason}"
    return f"{one.spare}: {one.reason or 'main was used with it last'}"


def _text(one: "Member") -> str:
    load, sb, tag = one.load, one.load.superblock, one.tag
    known = tag if tag and not tag.fault else None
    pairs: list[tuple[str, object]] = [("device", one.place.path), ("role", one.role)]
    if one.role == "main":
        pairs += [
            ("set", known.name if known else one.running),
            ("uuid", one.uuid),
            ("kind", "tagged" if tag else "adopted"),
            ("running", f"as {one.running}" if one.running else "no"),
            ("size", size(known.main_sectors) if known else size(one.size // 512)),
            ("data starts", f"at sector {known.data_start}" if known else None),
            ("unit", f"{known.unit} bytes" if known else None),
            ("area", f"{size(known.spare_len)} from sector {known.spare_start}" if known else None),
            ("epoch", known.epoch.number if known else None),
            ("tag", f"cannot be used: {tag.fault}" if tag and tag.fault else None),
            ("spare", _spare_words(one.compared)),
        ]
        return "\n".join([fields(pairs), *finding_lines(_findings(one))])
    pairs += [
        ("set", sb.name if sb else None),
        ("uuid", one.uuid),
        ("running", f"as {one.running}" if one.running else "no"),
    ]
    if sb is not None:
        pairs += [
            ("state", f"{sb.state.name}{', gone on elsewhere' if sb.superseded else ''}"),
            ("area", f"{size(sb.area_sectors)} from sector {one.place.start}"),
            ("unit", f"{sb.unit} bytes"),
            ("main", f"{'tagged' if sb.tagged else 'adopted'}, {size(sb.main_sectors)}"),
            ("main serial", sb.main_serial or None),
            ("data", f"{size(sb.data_sectors)} from sector {sb.data_start}"),
            ("epoch", compared_words(load, one.compared)),
            (
                "predecessor",
                f"{sb.predecessor}, to its epoch {sb.predecessor_epoch.number}"
                if sb.predecessor
                else None,
            ),
            ("spare number", sb.spare_serial if sb.spare_serial > 1 else None),
            ("errors", plain(sb.errors)),
            ("remap rate", f"{sb.remap_rate} a minute" if sb.remap_rate is not None else None),
        ]
    pairs += [("slots", slots_words(load)), ("load", load_words(load))]
    return "\n".join([fields(pairs), *finding_lines(load.findings)])
