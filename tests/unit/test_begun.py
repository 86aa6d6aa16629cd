# SPDX-License-Identifier: GPL-2.0-only
"""Notes of what is begun, by processes that are there and by some that are gone."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from dmremap.host import begun, durable


def killed(directory: Path, **about: str | int) -> None:
    """Write a note in a child, which is killed."""
    child = os.fork()
    if not child:
        with begun.noted("it", directory=directory, **about):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_what_has_ended_leaves_no_note(tmp_path: Path) -> None:
    with begun.noted("it", directory=tmp_path / "begun", name="x"):
        assert len(list((tmp_path / "begun").iterdir())) == 1
    assert list((tmp_path / "begun").iterdir()) == []


def test_who_is_there_is_left_alone(tmp_path: Path) -> None:
    with begun.noted("it", directory=tmp_path), begun.left(directory=tmp_path) as notes:
        assert notes == []


def test_what_is_left_by_who_was_killed(tmp_path: Path) -> None:
    for number in (1, 2):
        killed(tmp_path, number=number, name="a b")
    with begun.left(directory=tmp_path) as notes:
        assert [(note.kind, dict(note.about)) for note in notes] == [
            ("it", {"number": number, "name": "a b"}) for number in (2, 1)
        ]
        with begun.left(directory=tmp_path) as others:
            assert others == [], "one takes it back"
        for note in notes:
            note.end()
    assert list(tmp_path.iterdir()) == []


def test_a_note_has_no_name_before_it_has_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever waits for the lock would take back what has ended well."""
    named: list[bool] = []
    real = os.close

    def close(fd: int) -> None:
        named.append(any(tmp_path.iterdir()))
        real(fd)

    monkeypatch.setattr(os, "close", close)
    with begun.noted("it", directory=tmp_path):
        pass
    monkeypatch.undo()
    assert named == [False]


def test_what_has_ended_while_it_was_opened_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path)
    real = fcntl.flock

    def flock(fd: int, how: int) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with begun.left(directory=tmp_path) as notes:
        assert notes == []


def test_a_note_that_is_kept_is_found(tmp_path: Path) -> None:
    with begun.noted("it", directory=tmp_path) as own:
        own.kept = True
    with begun.left(directory=tmp_path) as notes:
        assert [note.kind for note in notes] == ["it"]


def test_what_is_no_note_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1-1").write_text("x")
    (tmp_path / "1-2").write_text("[]")
    (tmp_path / "1-3").write_text("{}")
    (tmp_path / "1-4").mkdir()
    (tmp_path / "1-5").write_text("5")
    os.mkfifo(tmp_path / "1-6")
    killed(tmp_path)
    with begun.left(directory=tmp_path) as notes:
        assert [note.kind for note in notes] == ["it"]
    with begun.left(directory=tmp_path / "none") as notes:
        assert notes == []


def test_who_cannot_write_a_note_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = False
    with begun.noted("it", directory=tmp_path / "file"):
        done = True
    assert done


def test_a_file_that_is_half_written_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, path = tmp_path / "notes", tmp_path / "file"
    monkeypatch.setattr(begun, "DIRECTORY", notes)
    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        durable.replace(path, "new")
    os.waitpid(child, 0)
    (part,) = set(tmp_path.iterdir()) - {notes}
    with begun.left() as left:
        assert [(note.kind, note.about["path"]) for note in left] == [("file", str(part))]
    durable.replace(path, "newer")
    assert set(tmp_path.iterdir()) - {notes} == {path}
