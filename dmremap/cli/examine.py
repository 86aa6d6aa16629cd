# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl examine"""

import click

from dmremap import Examined, SetOnDisk, examine, to_dict
from dmremap.cli._meta import (
    compared_words,
    finding_lines,
    load_words,
    slots_words,
    start_option,
)
from dmremap.cli.common import Result, fields, output_option, size


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
    found = examine(device, start=start)
    return Result(found, lambda: _text(found))


def _text(found: Examined) -> str:
    if found.role == "none":
        return ""  # the error says it
    return _spare(found) if found.role == "spare" else _main(found)


def _head(found: Examined) -> list[tuple[str, object]]:
    return [("device", found.device), ("role", found.role)]


def _running(found: Examined) -> tuple[str, object]:
    return "running", f"as {found.running}" if found.running else "no"


def _main(found: Examined) -> str:
    known = found.tag if found.tag and not found.tag.fault else None
    pairs: list[tuple[str, object]] = [
        *_head(found),
        ("set", known.name if known else found.running),
        ("uuid", found.uuid),
        ("kind", "tagged" if found.tag else "adopted"),
        _running(found),
        ("size", size(known.main_sectors if known else found.size_bytes // 512)),
    ]
    if known:
        area = f"{size(known.spare_sectors)} from sector {known.spare_start_sectors}"
        pairs += [
            ("data starts", f"at sector {known.data_start_sectors}"),
            ("unit", f"{known.unit_bytes} bytes"),
            ("area", area),
            ("epoch", known.epoch.number if known.epoch else 0),
        ]
    fault = found.tag.fault if found.tag else None
    pairs += [("tag", f"cannot be used: {fault}" if fault else None), ("spare", _its_spare(found))]
    return "\n".join([fields(pairs), *finding_lines(found.findings)])


def _its_spare(found: Examined) -> str | None:
    """Return where a main's spare is and what main's tag says of it."""
    if found.compared is None:
        return None
    reason = found.compared.reason
    if found.spare is None:
        return f"not known: {reason}"
    return f"{found.spare}: {reason or 'main was used with it last'}"


def _spare(found: Examined) -> str:
    known = found.set
    pairs = [
        *_head(found),
        ("set", known.name if known else None),
        ("uuid", found.uuid),
        _running(found),
        *(_set(found, known) if known else ()),
        ("slots", slots_words(found.slots)),
        ("load", load_words(found.load) if found.load else None),
    ]
    return "\n".join([fields(pairs), *finding_lines(found.findings)])


def _set(found: Examined, known: SetOnDisk) -> list[tuple[str, object]]:
    """Return what a superblock says."""
    older = known.predecessor_epoch.number if known.predecessor_epoch else 0
    predecessor = f"{known.predecessor}, to its epoch {older}" if known.predecessor else None
    rate = known.remap_rate
    return [
        ("state", f"{known.state.name}{', gone on elsewhere' if known.superseded else ''}"),
        ("area", f"{size(known.area_sectors)} from sector {found.start_sectors}"),
        ("unit", f"{known.unit_bytes} bytes"),
        ("main", f"{known.kind}, {size(known.main_sectors)}"),
        ("main serial", known.main_serial or None),
        ("data", f"{size(known.data_sectors)} from sector {known.data_start_sectors}"),
        ("epoch", compared_words(known.epoch, found.compared)),
        ("predecessor", predecessor),
        ("spare number", known.spare_serial if known.spare_serial > 1 else None),
        ("errors", to_dict(known.errors)),
        ("remap rate", f"{rate} a minute" if rate is not None else None),
    ]
