# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl version"""

import click

from dmremap import to_dict, versions
from dmremap.cli.common import Result, fields, output_option


@click.command()
@output_option
def command() -> Result:
    """Show the versions of all parts."""
    answer = versions()
    return Result(answer, lambda: fields(to_dict(answer).items()))
