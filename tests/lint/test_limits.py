# SPDX-License-Identifier: GPL-2.0-only
"""Each limit of a queue that a kernel knows has a row that says what a set shows of it."""

import re
from pathlib import Path

import limits
import pytest
from harness import kernels
from harness.kernels import Kernel

MEMBER = re.compile(r"^\s+(?:enum |struct |unsigned )?\w+\s+(\w+);$", re.MULTILINE)
FLAG = re.compile(r"^(?:#define)?\s+((?:BLK_FEAT|BLK_FLAG|QUEUE_FLAG)_\w+)", re.MULTILINE)
NO_FLAGS = {"BLK_FEAT_INHERIT_MASK", "QUEUE_FLAG_MQ_DEFAULT", "QUEUE_FLAG_MAX"}
"""Names of several flags at once."""


def names(header: str) -> set[str]:
    """Return the members of struct queue_limits and all flags of queues in a blkdev.h.

    >>> sorted(names('''struct queue_limits {
    ...     enum blk_bounce bounce;
    ...     /* a comment; */
    ...     unsigned int io_min;
    ... };
    ... #define BLK_FEAT_FUA ((__force blk_features_t)(1u << 1))
    ... enum {
    ...     QUEUE_FLAG_DYING, /* queue being torn down */
    ...     QUEUE_FLAG_MAX
    ... };'''))
    ['BLK_FEAT_FUA', 'QUEUE_FLAG_DYING', 'bounce', 'io_min']
    """
    body = re.search(r"^struct queue_limits \{\n(.*?)^\};", header, re.MULTILINE | re.DOTALL)
    assert body
    plain = re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)
    members = MEMBER.findall(plain)
    assert len(members) == plain.count(";"), "a member that is not understood"
    return {*members, *FLAG.findall(header)} - NO_FLAGS


def blkdev(kernel: Kernel) -> str:
    """Return a kernel's blkdev.h: Debian has it beside the headers of one processor."""
    (header,) = {
        path.resolve()
        for tree in (kernel.tree, *kernel.tree.resolve().parent.glob("*-common"))
        for path in (tree / "include/linux/blkdev.h", tree / "source/include/linux/blkdev.h")
        if path.exists() and _same_release(tree, kernel)
    }
    return header.read_text()


def _same_release(tree: Path, kernel: Kernel) -> bool:
    return tree == kernel.tree or kernel.release.removesuffix("-amd64") in tree.name


def test_every_limit_of_a_kernel_has_a_row(kernel: Kernel) -> None:
    unknown = names(blkdev(kernel)) - limits.LIMITS.keys()
    assert not unknown, f"what does a set show of {', '.join(sorted(unknown))}? (tests/limits.py)"


def test_a_new_member_is_seen(kernel: Kernel) -> None:
    header = blkdev(kernel).replace(
        "\tunsigned int\t\tio_min;\n", "\tunsigned int\t\tio_min;\n\tu64\tio_new;\n"
    )
    assert names(header) - limits.LIMITS.keys() == {"io_new"}


@pytest.mark.usually("6.12")
def test_no_row_is_left_over(kernel: Kernel) -> None:
    """Of all kernels together, whichever this is run for."""
    known = set().union(*(names(blkdev(kernels.find(series))) for series in kernels.SERIES))
    assert limits.LIMITS.keys() - known == set(), kernel.series


@pytest.mark.parametrize("row", [*limits.LIMITS.values(), *limits.FILES.values()])
def test_a_row_says_what_and_why(row: limits.Row) -> None:
    assert row.shows in limits.RULES
    assert row.old in ("", *limits.RULES)
    assert row.why
