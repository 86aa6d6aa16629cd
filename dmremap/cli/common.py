# SPDX-License-Identifier: GPL-2.0-only
"""What every verb needs: its result, how it is printed, and the options they share."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TextIO, TypeVar

import click

from dmremap import (
    Answer,
    DmRemapError,
    Exit,
    Refused,
    Usage,
    __version__,
    binary_size,
    to_dict,
)

SCHEMA: Final = "dmremap/1"
FORMATS: Final = ("table", "json", "jsonl")

P = ParamSpec("P")
R = TypeVar("R")


class Seconds(click.FloatRange):
    """A time that can be waited for: no infinity, and nothing that is no number."""

    name = "seconds"

    def __init__(self, least: float = 0) -> None:
        """Take at least so many, and a year at most."""
        super().__init__(min=least, max=366 * 86400)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


class NoVerb(Exception):
    """A group was called without one of its commands; the text is the group's help."""


class VerbGroup(click.Group):
    """A group that needs a command.

    Without one click shows the help, but not all versions of it take that for an error.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse to do nothing."""
        if not args and not ctx.resilient_parsing:
            raise NoVerb(ctx.get_help())
        return super().parse_args(ctx, args)


@dataclass(frozen=True, slots=True)
class Result:
    """What a verb has to say.

    `answer` goes into the JSON envelope. `text` is for people; a callable is asked only when people
    are to read it. `rows` names the field of `answer` that `-o jsonl` prints one a line.
    """

    answer: Answer
    text: str | Callable[[], str] = ""
    rows: str | None = None
    exit: int = Exit.OK


def envelope(
    command: str,
    data: object,
    *,
    warnings: Iterable[str] = (),
    error: DmRemapError | None = None,
) -> dict[str, Any]:
    """Return the object that every JSON answer is."""
    return {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "warnings": list(warnings),
        "error": to_dict(error),
        "data": to_dict(data),
    }


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON in ASCII: names may hold bytes that are not UTF-8."""
    import json

    return json.dumps(value, indent=indent, ensure_ascii=True)


# What a terminal obeys, but for the bold type of a table's head and the ends of lines.
_CONTROL = re.compile(r"(?!\x1b\[[01]m)[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class _Line:
    """Whether a line of progress has begun, which ends before anything else is written."""

    begun: bool = False


_line: Final = _Line()


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text that may hold anything a device can be called."""
    if _line.begun:
        _line.begun = False
        sys.stderr.write("\n")
    out = stream or sys.stdout
    encoding = out.encoding or "utf-8"
    text = _CONTROL.sub(_escaped, text)
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))


def one_line(value: object) -> str:
    """Return a value as text that has no command to a terminal in it, and no end of a line."""
    return _CONTROL.sub(_escaped, str(value).replace("\n", "\\n"))


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def show(result: Result, command: str, form: str) -> None:
    """Print a result in one of FORMATS."""
    answer = result.answer
    if form == "table":
        for warning in answer.warnings:
            write(f"warning: {one_line(warning)}\n", sys.stderr)
        text = result.text if isinstance(result.text, str) else result.text()
        if text:
            write(text if text.endswith("\n") else text + "\n")
        if answer.error:
            show_error(answer.error, command, form)
        return
    whole = envelope(command, answer, warnings=answer.warnings, error=answer.error)
    if form == "json":
        write(to_json(whole, indent=2) + "\n")
        return
    data = whole["data"]
    if result.rows and isinstance(data, dict) and data.get(result.rows):
        for item in data[result.rows]:
            write(to_json({**whole, "data": {**data, result.rows: [item]}}) + "\n")
    else:
        write(to_json(whole) + "\n")


def show_error(err: DmRemapError, command: str, form: str) -> None:
    """Print an error: to people on stderr, to programs as an envelope on stdout."""
    if form == "table":
        write(f"dmremapctl: {one_line(err.message)} [{err.code}]\n", sys.stderr)
        if err.hint:
            write(f"  {err.hint}\n", sys.stderr)
        for note in err.notes:
            write(f"  {one_line(note)}\n", sys.stderr)
    else:
        whole = envelope(command, None, error=err)
        write(to_json(whole, indent=2 if form == "json" else None) + "\n")


def wanted_format(args: Sequence[str]) -> str:
    """Return the output format that the arguments ask for.

    Looked up before click parses them, so that a usage error too is printed in that format.
    """
    form = "table"
    for i, word in enumerate(args):
        if word == "--":
            break
        value = None
        if word in ("-o", "--output"):
            value = args[i + 1] if i + 1 < len(args) else None
        elif word.startswith("--output="):
            value = word.partition("=")[2]
        elif word.startswith("-o") and not word.startswith("--"):
            value = word[2:].removeprefix("=")
        if value in FORMATS:
            form = value
    return form


def _keep_output(context: click.Context, _param: click.Parameter, value: str) -> None:
    context.meta["dmremap.output"] = value


def output_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add -o/--output. The verb does not see it: what it returns is printed as asked."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        expose_value=False,
        callback=_keep_output,
        help="Print a table for people, or JSON.",
    )(function)


def change_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add --dry-run, --yes and --lock-timeout, for verbs that change something."""
    function = click.option(
        "--lock-timeout",
        type=Seconds(),
        default=20.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for another dmremapctl that changes something.",
    )(function)
    function = click.option(
        "-y", "--yes", is_flag=True, help="Answer questions with yes; needed without a terminal."
    )(function)
    return dry_run_option(function)


def dry_run_option(function: Callable[P, R]) -> Callable[P, R]:
    """Add --dry-run alone, for verbs that change something and neither ask nor lock."""
    return click.option(
        "-n", "--dry-run", is_flag=True, help="Check everything, say what would be done, stop."
    )(function)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; never hang without one."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Usage("DMR-E202", f"{question} There is no terminal to ask on.")
    write(f"{question} [y/N] ", sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("DMR-E520", "not confirmed; nothing was done")


_MEASURED: Final = 1.0
"""Seconds after which what was done so far tells how long the rest takes."""
_LONG: Final = 20.0
"""Seconds that nobody is left to wait without being told, on a terminal or not."""


def _time_left(seconds: float) -> str:
    return f"{math.ceil(seconds)} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def progress(*, told: bool = False) -> Callable[[str, int, int], None] | None:
    """Return something that shows the progress of each step on stderr, and how much time is left.

    If that is no terminal there is one line about what takes long, if it is to be `told`.
    """
    if not sys.stderr.isatty() and not told:
        return None
    kind = _Shown if sys.stderr.isatty() else _Told
    steps: dict[str, _Shown | _Told] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in steps:
            steps[what] = kind(what)
        steps[what](done, total)

    return show


@dataclass(slots=True)
class _Rate:
    """How long the rest takes, by how long it took so far."""

    began: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> float | None:
        """Return the seconds that are left, None if that is not known yet."""
        now = time.monotonic()
        since, before = self.began = self.began or (now, done)
        if now - since < _MEASURED or done == before:
            return None
        return (total - done) * (now - since) / (done - before)


class _Shown:
    def __init__(self, what: str) -> None:
        self.what, self.text, self.rate = what, "", _Rate()

    def __call__(self, done: int, total: int) -> None:
        left = self.rate.left(done, total)
        text = f"{self.what}: {done * 100 // total if total else 100} %"
        if left and done < total:
            text += f" ({_time_left(left)})"
        if text != self.text:
            # What was longer is written over.
            padded, self.text = text.ljust(len(self.text)), text
            _line.begun = done < total
            sys.stderr.write(f"\r{padded}" + ("" if _line.begun else "\n"))
            sys.stderr.flush()


class _Told:
    def __init__(self, what: str) -> None:
        self.what, self.rate, self.known = what, _Rate(), False

    def __call__(self, done: int, total: int) -> None:
        left = None if self.known else self.rate.left(done, total)
        if left is not None:
            self.known = True
            if left > _LONG:
                write(f"{self.what}: {_time_left(left)}\n", sys.stderr)
                sys.stderr.flush()


def size(sectors: int) -> str:
    """Return a number of sectors as people read it."""
    return binary_size(sectors * 512)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """Return lines of `name: value`, aligned."""
    kept = [(name, one_line(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name + ':':<{width + 2}}{value}".rstrip() for name, value in kept)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table: folded to the terminal's width on one, never cut in a pipe."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    if sys.stdout.isatty():
        return _rich_table(headers, cells)
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [list(headers), *cells]
    ]
    return "\n".join(lines)


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    import shutil

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain_text = "NO_COLOR" in os.environ
    # Text and not strings: a name such as a[b] is no markup.
    grid = Table(box=None, pad_edge=False, header_style="" if plain_text else "bold")
    for name in headers:
        grid.add_column(Text(name), overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(
        markup=False,
        highlight=False,
        emoji=False,
        width=shutil.get_terminal_size().columns,
        no_color=plain_text or None,
    )
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
