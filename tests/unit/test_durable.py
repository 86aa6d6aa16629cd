# SPDX-License-Identifier: GPL-2.0-only
"""Files that are there as a whole or as they were."""

import errno
import os
from pathlib import Path

import pytest

from dmremap.host import durable


@pytest.fixture(params=["links", "EPERM", "EOPNOTSUPP"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with links and without: vfat says EPERM, exfat and some servers the other."""
    why: str = request.param
    if why != "links":

        def link(_source: Path, _target: Path) -> None:
            raise OSError(getattr(errno, why), os.strerror(getattr(errno, why)))

        monkeypatch.setattr("os.link", link)
    return why


@pytest.mark.usefixtures("links")
def test_a_name_that_nothing_has(tmp_path: Path) -> None:
    part, name = tmp_path / "part", tmp_path / "name"
    part.write_text("new")
    durable.give_name(part, name)
    assert name.read_text() == "new"
    part.unlink(missing_ok=True)
    part.write_text("newer")
    with pytest.raises(FileExistsError):
        durable.give_name(part, name)
    assert (name.read_text(), part.read_text()) == ("new", "newer")


def test_another_trouble_is_told(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_text("new")
    with pytest.raises(FileNotFoundError):
        durable.give_name(part, tmp_path / "none" / "name")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    durable.replace(path, "one")
    assert path.read_text() == "one"
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        durable.replace(path, "two")
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]
