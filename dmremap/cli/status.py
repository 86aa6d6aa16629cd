# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl status"""

from collections.abc import Sequence

import click

from dmremap import SetStatus, TargetStatus, status
from dmremap.cli.common import Result, fields, output_option, size, table


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|UUID]...")
@output_option
def command(names: tuple[str, ...]) -> Result:
    """Show how running sets are, all of them or those named."""
    answer = status(*names)
    return Result(answer, lambda: _text(answer.sets), rows="sets")


def _text(sets: Sequence[SetStatus]) -> str:
    if not sets:
        return "No set is running."
    if sets[0].health is None:
        shown = [[running.name, running.device, running.uuid] for running in sets]
        return table(["NAME", "DEVICE", "UUID"], shown)
    return _alone(sets[0]) if len(sets) == 1 else _many(sets)


def _told(running: SetStatus) -> list[TargetStatus]:
    return [target.status for target in running.targets if target.status]


def _mapped(running: SetStatus) -> str:
    targets = _told(running)
    mapped = sum(target.mapped for target in targets)
    return f"{mapped}/{sum(target.slots for target in targets)}"


def _pending(running: SetStatus) -> int:
    return sum(target.pending for target in _told(running))


def _leg(running: SetStatus, leg: str) -> str:
    """Return the devices that are main, or the spare, of the targets."""
    return ", ".join(
        getattr(target.table, leg)
        + (" (failing)" if target.status and getattr(target.status, leg) == "failing" else "")
        for target in running.targets
    )


def _choices(running: SetStatus) -> list[tuple[str, object]]:
    """Return what counts of what may be chosen, where the module says it."""
    targets = _told(running)
    errors = dict.fromkeys(target.errors for target in targets if target.errors)
    rates = dict.fromkeys(target.remap_rate for target in targets if target.remap_rate is not None)
    return [
        ("errors", ", ".join(errors) or None),
        ("remap rate", ", ".join(f"{n} a minute" if n else "no limit" for n in rates) or None),
    ]


def _health(running: SetStatus) -> str:
    return running.health.name.lower() if running.health is not None else "-"


def _alone(running: SetStatus) -> str:
    pairs: list[tuple[str, object]] = [
        ("name", running.name),
        ("uuid", running.uuid),
        ("device", running.device),
        ("state", f"{running.state}{' (read-only)' if running.readonly else ''}"),
        ("size", size(running.data_sectors or 0)),
        ("main", _leg(running, "main")),
        ("spare", _leg(running, "spare")),
        ("mapped", f"{_mapped(running)} slots"),
        ("pending", _pending(running)),
        *_choices(running),
        ("health", _health(running)),
    ]
    lines = [fields(pairs)]
    for reason in running.reasons or ():
        lines += [f"  {reason.code}: {reason.sentence}", f"    {reason.next_step}"]
    return "\n".join(lines)


def _many(sets: Sequence[SetStatus]) -> str:
    shown = [
        [
            running.name,
            running.state,
            _leg(running, "main"),
            _leg(running, "spare"),
            _mapped(running),
            _pending(running),
            _health(running),
            running.reasons[0].next_step if running.reasons else "",
        ]
        for running in sets
    ]
    headers = ["NAME", "STATE", "MAIN", "SPARE", "MAPPED", "PENDING", "HEALTH", "NEXT STEP"]
    return table(headers, shown)
