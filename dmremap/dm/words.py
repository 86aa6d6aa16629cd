# SPDX-License-Identifier: GPL-2.0-only
"""The words of what the `remap` target prints. Pure."""

import re

from dmremap.errors import Failure

_U64 = (1 << 64) - 1
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


class LineError(Failure):
    """A line that is not what the `remap` target prints or takes."""

    def __init__(self, message: str) -> None:
        """Keep the sentence, which quotes the line."""
        super().__init__("DMR-E106", message)


def number(text: str, what: str, line: str) -> int:
    """Read a plain decimal number that fits the kernel's u64."""
    if _NUMBER.fullmatch(text) is None or (value := int(text)) > _U64:
        raise LineError(f"{what} is {text!r} and not a number, in {line!r}")
    return value


def choice(text: str, choices: tuple[str, ...], what: str, line: str) -> str:
    """Read one of some words."""
    if text not in choices:
        raise LineError(f"{what} is {text!r} and none of {', '.join(choices)}, in {line!r}")
    return text
