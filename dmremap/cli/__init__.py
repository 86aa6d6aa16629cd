# SPDX-License-Identifier: GPL-2.0-only
"""The command line: arguments in, words out.

Each verb is a module of this package that exposes `command`, a click command whose function
returns a `Result`. Modules are imported only when their verb is called, and click itself only
when there is more to do than to print the version.
"""

import sys
from collections.abc import Sequence

from dmremap import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run dmremapctl and return its exit code."""
    # Not list(): in this package that is the verb, once it is imported.
    args = [*(sys.argv[1:] if argv is None else argv)]
    if args == ["--version"]:
        sys.stdout.write(f"dmremapctl {__version__}\n")
        return 0
    from dmremap.cli.app import run

    return run(args)
