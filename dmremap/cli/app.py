# SPDX-License-Identifier: GPL-2.0-only
"""The main group, and the one place where errors become words and an exit code."""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from keyword import iskeyword
from typing import Any, Final

import click

from dmremap import (
    DmRemapError,
    Exit,
    Failure,
    Interrupted,
    NotFound,
    Usage,
    __version__,
)
from dmremap.cli.common import NoVerb, Result, VerbGroup, show, show_error, wanted_format

# Verb -> its line in the help. The module is dmremap.cli.<verb>, with a line behind a word of
# Python's; nothing is imported to list them.
VERBS: Final[dict[str, str]] = {
    "create": "Make a set of a main and a spare device and start it.",
    "adopt": "Put a disk that holds data under a set, in place.",
    "assemble": "Start sets that exist on disk.",
    "remove": "Stop a set; what is on disk stays.",
    "grow": "Give a running set more of its spare.",
    "list": "List sets, running or found on disk.",
    "status": "Show how running sets are.",
    "health": "Judge running sets and say what to do.",
    "scrub": "Have a running set read and mend its metadata.",
    "monitor": "Watch sets and report what happens.",
    "examine": "Say what a device is to dm-remap.",
    "check": "Check the metadata on a spare; writes nothing.",
    "repair": "Write what a load would write.",
    "export": "Save a set's metadata to a file.",
    "import": "Bring a set's metadata back from a file.",
    "module": "Load, unload or look at the kernel module.",
    "selftest": "Try load, create, I/O, remove and unload.",
    "explain": "Explain an error or health code.",
    "version": "Show the versions of all parts.",
}


class LazyGroup(VerbGroup):
    """A group that imports a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a verb."""
        if cmd_name not in VERBS:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"dmremap.cli.{name}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 busy, 5 refused, "
    "6 permission, 7 kernel or module, 8 partial.",
)
@click.version_option(__version__, prog_name="dmremapctl", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Log what is run, and show tracebacks.")
def group(debug: bool) -> None:
    """Keep a failing disk in service with dm-remap."""
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")


def verb(args: Sequence[str]) -> str:
    """Return the verb among the arguments, for the envelope."""
    return next((word for word in args if word in VERBS), "")


def run(args: Sequence[str]) -> int:
    """Run a command line to its exit code."""
    form = wanted_format(args)
    command = verb(args)
    try:
        code = _run(args, command, form)
        sys.stdout.flush()
        _silence()  # what cannot be told on stderr does not change how it ended
    except OSError as err:
        if not isinstance(err, BrokenPipeError):  # a reader that went away has seen enough
            with contextlib.suppress(OSError):
                lost = f"the output cannot be written: {err.strerror}"
                show_error(Failure("DMR-E108", lost), command, "table")
        _silence()
        return int(Exit.FAILURE)
    return code


def _silence() -> None:
    """Keep Python from complaining once more about what it cannot write when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(args: Sequence[str], command: str, form: str) -> int:
    """Run a command line and show what comes of it. An OSError that leaves here is the output's."""
    try:
        answer: Any = group.main(list(args), prog_name="dmremapctl", standalone_mode=False)
    except BrokenPipeError:
        raise
    except NoVerb as err:
        sys.stderr.write(f"{err}\n")
        return int(Exit.USAGE)
    except (Exception, KeyboardInterrupt) as err:
        sys.stdout.flush()  # fails once more if it was the output that failed
        import logging  # not at the top: it would be a part of what every command takes to start

        logging.getLogger("dmremap").debug("raised here", exc_info=True)
        error = _as_error(err)
        show_error(error, command, form)
        return int(error.as_dict()["exit"])
    if isinstance(answer, Result):
        show(answer, command, form)
        failed = answer.answer.error
        return int(failed.exit if failed else answer.exit)
    # --help and --version come back as click's own exit code.
    return answer if isinstance(answer, int) else int(Exit.OK)


def _as_error(err: BaseException) -> DmRemapError:
    match err:
        case DmRemapError():
            return err
        case click.ClickException():
            return Usage("DMR-E201", err.format_message(), hint=_help_hint(err))
        case ImportError():
            return NotFound("DMR-E308", f"something cannot be imported: {err}")
        case KeyboardInterrupt() | click.Abort():
            return Interrupted("DMR-E109", "interrupted")
    return Failure("DMR-E100", f"internal error: {type(err).__name__}: {err}")


def _help_hint(err: click.ClickException) -> str:
    context = getattr(err, "ctx", None)
    path = context.command_path if context else "dmremapctl"
    return f"See '{path} --help'."
