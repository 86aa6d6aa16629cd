# SPDX-License-Identifier: GPL-2.0-only
"""What dm-remap costs is within its bars: what tools/bench --check measures, on each kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness import kernels
from harness.bench import rows, run
from harness.fixtures import artefacts

if TYPE_CHECKING:
    from harness.kernels import Kernel

# What a kernel costs that looks for its own faults is nobody's price.
pytestmark = [
    *(pytest.mark.vm, pytest.mark.timeout(600)),
    *(pytest.mark.kernels(*kernels.SERIES), pytest.mark.usually(*kernels.SERIES)),
]


def test_no_row_misses_its_bar(kernel: Kernel, request: pytest.FixtureRequest) -> None:
    found = run.measure(kernel, artefacts(request.node.nodeid), quick=True)
    print(rows.text(found))
    missed = [rows.sentence(row) for row in rows.missed(found)]
    assert not missed, "\n".join(missed)
