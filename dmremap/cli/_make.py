# SPDX-License-Identifier: GPL-2.0-only
"""What create and adopt share."""

import re
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import click

from dmremap import Created, Size, binary_size
from dmremap.cli.common import (
    Result,
    change_options,
    confirm,
    fields,
    one_line,
    output_option,
    progress,
    size,
)

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


def sectors_or_all(context: click.Context, param: click.Parameter, value: str | None) -> Size:
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


def make(verb: Callable[..., Created], *, spare_size: Size, yes: bool, **options: Any) -> Result:
    """Make a set by a verb, create or adopt, that asks first."""

    def ask(plan: Created) -> None:
        confirm(_question(plan, anew=options["wipe"] or options["force"]), yes=yes)

    done = verb(spare_sectors=spare_size, confirm=ask, progress=progress(told=True), **options)
    if done.dry_run:
        return Result(done, would(done.steps))
    return Result(done, lambda: _made(done))


def _question(plan: Created, *, anew: bool) -> str:
    if not plan.destroys and not anew:
        return (
            f"Create set {plan.name!r} of {plan.main} and {plan.spare}, with {plan.slots} slots "
            f"({cost(plan.memory_bytes)})?"
        )
    lost = "\n".join(f"  {one_line(what)}" for what in plan.destroys)
    head = "" if plan.kind == "adopted" else f" and in the first MiB of {plan.main}"
    return (
        f"This destroys:\n{lost}\n" if lost else ""
    ) + f"Everything in the area on {plan.spare}{head} will be overwritten. Go on?"


def would(steps: Iterable[str]) -> str:
    """Return what a dry run has to say of the steps."""
    return "Would:\n" + "\n".join(f"  {one_line(step)}" for step in steps)


def cost(memory: int) -> str:
    """Return what slots cost, for people."""
    return f"{binary_size(memory)} of memory while the set runs"


def _made(done: Created) -> str:
    shown = fields(
        [
            ("device", done.device),
            ("uuid", done.uuid),
            ("size", size(done.data_sectors)),
            ("slots", f"{done.slots} of {done.unit_bytes} bytes"),
            ("udev rule", done.rule),
        ]
    )
    return f"Set {done.name} is running.\n{shown}"
