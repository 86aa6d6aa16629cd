# SPDX-License-Identifier: GPL-2.0-only
"""dmremapctl explain"""

import click

from dmremap import explain, to_dict
from dmremap.cli.common import Result, fields, output_option, table


@click.command()
@click.argument("code", required=False)
@output_option
def command(code: str | None) -> Result:
    """Explain a code of an error, a check or health, or list all of them."""
    answer = explain(code)
    if code is None:
        rows = [[known.code, known.title] for known in answer.codes]
        return Result(answer, lambda: table(["CODE", "TITLE"], rows), rows="codes")
    return Result(answer, lambda: fields(to_dict(answer.codes[0]).items()))
