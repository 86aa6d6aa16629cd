# SPDX-License-Identifier: GPL-2.0-only
"""Every file says under which licence it is, and the text of that licence is there."""

import filecmp
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from harness import source
from harness.kernels import SERIES, Kernel
from harness.paths import ROOT

import dmremap

LICENCE = "GPL-2.0-only"
TEXT = Path("/usr/share/common-licenses/GPL-2")
"""Debian's copy of the text, which is on every machine that runs this."""
TEXTS = [Path("COPYING"), Path("LICENSES", f"{LICENCE}.txt")]
SAYS = re.compile(r"(?:#|//|/\*|<!--) SPDX-License-Identifier: (\S+)(?: \*/| -->)?")


def said(path: Path) -> str | None:
    """Return what one of a file's first two lines says, the first one may be for the kernel."""
    first = path.read_bytes().split(b"\n")[:2]
    lines = [line.decode(errors="replace") for line in first]
    found = [match[1] for line in lines if (match := SAYS.fullmatch(line))]
    return found[0] if found else None


def table() -> dict[Path, str]:
    """Return the licences of files that cannot carry a comment."""
    rows = tomllib.loads((ROOT / "REUSE.toml").read_text())["annotations"]
    found = {}
    for row in rows:
        for pattern in row["path"]:
            paths = [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
            assert paths, f"REUSE.toml: there is no {pattern}"
            found.update(dict.fromkeys(paths, row["SPDX-License-Identifier"]))
    return found


def test_every_file_has_a_licence() -> None:
    listed = table()
    wrong = []
    for name in source.files():
        if name in TEXTS:
            continue
        tag = said(ROOT / name)
        if tag is not None and name in listed:
            wrong.append(f"{name}: says it itself, and stands in REUSE.toml, too")
        elif tag != LICENCE and listed.get(name) != LICENCE:
            wrong.append(f"{name}: has no SPDX-License-Identifier: {LICENCE}")
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1\n",
        "\n\n# SPDX-License-Identifier: GPL-2.0-only\n",
        "SPDX-License-Identifier: MIT\n",
    ],
)
def test_a_file_without_one_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    assert said(tmp_path / "file") is None


def test_the_text_is_the_one_that_everybody_knows() -> None:
    for path in TEXTS:
        assert filecmp.cmp(ROOT / path, TEXT, shallow=False), path
    assert [path.name for path in (ROOT / "LICENSES").iterdir()] == [TEXTS[1].name]


def test_the_package_says_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == {"text": LICENCE}
    assert f"Everything here is under {LICENCE}" in (ROOT / "README.md").read_text()


@pytest.mark.usually(*SERIES)
def test_the_module_and_the_package_have_one_version_and_one_licence(kernel: Kernel) -> None:
    """In what tools/prepare has built for each kernel."""
    module = kernel.module("dm_remap")
    fields = {
        field: subprocess.run(
            ["modinfo", "-F", field, module], capture_output=True, text=True, check=True
        ).stdout.strip()
        for field in ("version", "license")
    }
    assert fields == {"version": dmremap.__version__, "license": "GPL"}
