# SPDX-License-Identifier: GPL-2.0-only
"""What create and adopt share."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar, cast

import click

from dmremap.cli.common import (
    Result,
    change_options,
    confirm,
    fields,
    need_root,
    one_line,
    output_option,
    progress,
    size,
)
from dmremap.errors import Usage

if TYPE_CHECKING:
    from dmremap.dm.lines import ErrorPolicy

P = ParamSpec("P")
R = TypeVar("R")

_UNITS = {"": 1, "s": 1, "k": 2, "m": 2 << 10, "g": 2 << 20, "t": 2 << 30}
_MOST = (1 << 63) // 512 - 1


def sectors(_context: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return a number of sectors, given as that or as a size with K, M, G or T (1024 bytes)."""
    if value is None:
        return None
    # 4096B would be bytes, which nothing here is counted in.
    match = re.fullmatch(r"(\d{1,18})(s?|(?:[kmgt](?:i?b)?))", value.lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a number of sectors nor a size like 512M")
    count = int(match[1]) * _UNITS[match[2][:1]]
    if count > _MOST:
        raise click.BadParameter(f"{value!r} is more than any device has: {_MOST} sectors")
    return count


def sectors_or_all(
    context: click.Context, param: click.Parameter, value: str | None
) -> "int | Literal['all'] | None":
    """Return a number of sectors, or that all there are is meant."""
    return "all" if value == "all" else sectors(context, param, value)


def rate_option(text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the option --remap-rate, with this help."""
    most = (1 << 32) - 1
    return click.option("--remap-rate", type=click.IntRange(0, most), metavar="N", help=text)


def make_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add the arguments and options of create and adopt."""
    for option in (
        output_option,
        change_options,
        click.option("--force", is_flag=True, help="Destroy recognised data and old sets."),
        click.option(
            "--wipe", is_flag=True, help="Overwrite data that is not recognised as anything."
        ),
        click.option(
            "--errors",
            type=click.Choice(["confirm", "medium"]),
            help="Which errors may remap: 'medium' trusts the disk to name media errors; default: "
            "'confirm'. What is given is recorded in the set.",
        ),
        rate_option(
            "How many pieces (physical blocks of MAIN) may be remapped in a minute before the "
            "breaker opens, 0: no limit; default: as many as fill a quarter of the slots. What is "
            "given is recorded in the set."
        ),
        click.option(
            "--spare-size",
            callback=sectors_or_all,
            metavar="SIZE|all",
            help="Size of the area, in sectors or such as 512M; 'all': as much of the spare as can "
            "become slots; default: as much as 1048576 slots take, if it has so much. What is left "
            "'grow' can take later.",
        ),
        click.option(
            "--spare-start",
            callback=sectors,
            default="0",
            metavar="SIZE",
            help="Where the area starts on the spare, a multiple of 8 sectors.",
        ),
        click.option("--name", help="Name of the set and of /dev/mapper/NAME."),
        click.argument("spare"),
        click.argument("main"),
    ):
        function = option(function)
    return function


def make(
    *,
    adopt: bool,
    main: str,
    spare: str,
    name: str | None,
    spare_start: int,
    spare_size: "int | Literal['all'] | None",
    errors: str | None,
    remap_rate: int | None,
    wipe: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
    lock_timeout: float,
) -> Result:
    """Plan, ask, carry out."""
    need_root("create a set")
    from dmremap import dm
    from dmremap.host.lock import locked
    from dmremap.sets import create
    from dmremap.sets.create import Request

    if errors not in (None, "confirm", "medium"):
        raise Usage("DMR-E201", f"errors is {errors!r}")
    request = Request(
        main=main,
        spare=spare,
        name=name,
        spare_start=spare_start,
        spare_sectors=spare_size,
        errors=cast("ErrorPolicy | None", errors),
        remap_rate=remap_rate,
        adopt=adopt,
        wipe=wipe,
        force=force,
    )
    plan = create.plan(request, dry_run=dry_run, progress=progress("checking the spare", told=True))
    sb = plan.superblock
    data: dict[str, object] = {
        "dry_run": dry_run,
        "name": sb.name,
        "uuid": sb.uuid,
        "device": dm.device_path(sb.name),
        "kind": "adopted" if adopt else "tagged",
        "main": plan.main.path,
        "spare": plan.spare.path,
        "spare_start_sectors": plan.area.start,
        "spare_sectors": plan.area.sectors,
        "data_sectors": sb.data_sectors,
        "unit_bytes": sb.unit,
        "slots": sb.slots,
        "memory_bytes": plan.cost.memory,
        "reads_bytes": plan.cost.reads,
        "table": plan.table.line,
        "rule": plan.rule.path if plan.rule else None,
        "steps": plan.steps,
        "destroys": [finding.message for finding in plan.destroys],
    }
    if dry_run:
        text = "Would:\n" + "\n".join(f"  {one_line(step)}" for step in plan.steps)
        return Result(data, text, warnings=plan.warnings)
    if plan.destroys or plan.clear:
        what = "\n".join(f"  {one_line(finding.message)}" for finding in plan.destroys)
        confirm(
            (f"This destroys:\n{what}\n" if what else "")
            + f"Everything in the area on {plan.spare.path}"
            + ("" if adopt else f" and in the first MiB of {plan.main.path}")
            + " will be overwritten. Go on?",
            yes=yes,
        )
    else:
        confirm(
            f"Create set {sb.name!r} of {main} and {spare}, with {sb.slots} slots "
            f"({plan.cost.words})?",
            yes=yes,
        )
    # Reading takes long and people take longer: others may work meanwhile, and what they change
    # is seen when everything is checked again.
    with locked(lock_timeout):
        started = create.carry_out(plan, progress=progress("writing metadata"))

    def text_for_people() -> str:
        shown = fields(
            [
                ("device", data["device"]),
                ("uuid", sb.uuid),
                ("size", size(sb.data_sectors)),
                ("slots", f"{sb.slots} of {sb.unit} bytes"),
                ("udev rule", plan.rule.path if plan.rule else None),
            ]
        )
        return f"Set {sb.name} is running.\n{shown}"

    return Result(data, text_for_people, warnings=started.warnings)
