# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl monitor"""

import logging
import sys

import click

from dmremap import Event, Events, Hook, Source, Usage, watch
from dmremap.cli.common import Result, Seconds, envelope, output_option, to_json, write


def _line(event: Event) -> str:
    """Return an event for people."""
    state = event.state.name if event.state is not None else "-"
    return f"{event.time} {event.name} {event.event} {state}: {event.message}"


@click.command()
@click.option(
    "--hook",
    metavar="PROGRAM",
    help="Run PROGRAM for each event, without arguments, told by DMREMAP_* in its environment.",
)
@click.option(
    "--hook-timeout",
    type=Seconds(0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Kill a hook, and all it has started, after so long.",
)
@click.option(
    "--hook-jobs",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    metavar="N",
    help="Run at most so many hooks at a time.",
)
@click.option(
    "--hook-interval",
    type=Seconds(),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Run a hook for one set and one kind of event at most so often; what happens in between "
    "is added up.",
)
@click.option(
    "--source",
    type=click.Choice(["auto", "udev", "netlink"]),
    default="auto",
    show_default=True,
    help="Who tells that something happened: udevd, or the kernel itself where no udevd runs.",
)
@click.option(
    "--rescan",
    type=Seconds(0.1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Look at all sets at least so often, whatever was told.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--once", is_flag=True, help="Report the sets that are there, and end.")
@output_option
@click.pass_context
def command(
    context: click.Context,
    *,
    hook: str | None,
    hook_timeout: float,
    hook_jobs: int,
    hook_interval: float,
    source: Source,
    rescan: float,
    count: int | None,
    once: bool,
) -> Result | None:
    """Watch all sets and report what happens, one line each.

    An event is a difference between two states read from the kernel, so none is made up and
    none that lasts is missed. The sets that run at the start are reported as 'found'. Runs
    until SIGINT or SIGTERM, and waits quietly where there is no set yet.

    \b
    Events: found assembled removed renamed reloaded remapped pending
    pending_cleared lost recovered slot_bad moved copies doubt flush_failed
    spare_low spare_full mode breaker probe noticed health

    \b
    A hook's environment: DMREMAP_EVENT, DMREMAP_NAME, DMREMAP_UUID, DMREMAP_DEVICE,
    DMREMAP_COUNT and DMREMAP_MESSAGE; DMREMAP_STATE (OK DEGRADED FAILING FAILED)
    and DMREMAP_CODES while the set is there; for events of one target
    DMREMAP_START (sector) and its status: DMREMAP_MODE, _UNIT (bytes), _MAPPED,
    _SLOTS, _FREE, _LOST, _PENDING, _BAD, _DOUBT, _COPIES, _READ_ERRORS,
    _WRITE_ERRORS, _TRANSIENT, _REMAPPED, _BREAKER (closed open), _MOVED, _GONE,
    _FLUSH_ERRORS, _MAIN and _SPARE (ok failing), _SEQ. What it prints goes to standard error.
    """
    form = context.meta["dmremap.output"]
    if form == "json" and not (once or count):
        raise Usage(
            "DMR-E201",
            "one JSON document needs an end",
            hint="Use -o jsonl, or end with --count or --once.",
        )
    collected: list[Event] = []

    def report(event: Event) -> None:
        if form == "json":
            collected.append(event)
            return
        if form == "jsonl":
            write(to_json(envelope("monitor", event)) + "\n")
        else:
            write(_line(event) + "\n")
        sys.stdout.flush()

    _log_to_stderr()
    program = None
    if hook is not None:
        program = Hook(program=hook, timeout=hook_timeout, jobs=hook_jobs, interval=hook_interval)
    watch(report, hook=program, source=source, rescan=rescan, count=count, once=once)
    return Result(Events(events=tuple(collected))) if form == "json" else None


def _log_to_stderr() -> None:
    """Show the monitor's own troubles, which are no events."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("dmremapctl: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("dmremap.monitor")
    logger.addHandler(handler)
    logger.propagate = logging.getLogger().isEnabledFor(logging.DEBUG)
