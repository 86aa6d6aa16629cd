# SPDX-License-Identifier: GPL-2.0-only
"""What is made once a machine and not once a checkout: kernels, and what builds for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache() -> Path:
    """Return where it is kept: in ``$XDG_CACHE_HOME/dm-remap`` or ``~/.cache/dm-remap``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dm-remap"


@contextlib.contextmanager
def locked(where: Path) -> Iterator[None]:
    """Keep others from making the same at the same time."""
    where.mkdir(parents=True, exist_ok=True)
    with (where / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
