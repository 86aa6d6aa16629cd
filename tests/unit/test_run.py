# SPDX-License-Identifier: GPL-2.0-only
"""The one place that runs programs."""

import subprocess
import time

import pytest

from dmremap.errors import Failure, NotFound
from dmremap.host.run import run


def test_output_and_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], ok=(3,))
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_failure_says_what_the_program_said() -> None:
    with pytest.raises(Failure, match="no such thing") as caught:
        run(["sh", "-c", "echo no such thing >&2; exit 1"])
    assert caught.value.code == "DMR-E101"


def test_missing_program() -> None:
    with pytest.raises(NotFound, match="not installed"):
        run(["a-program-that-nobody-has"])


def test_deadline() -> None:
    begin = time.monotonic()
    with pytest.raises(Failure, match="did not finish"):
        run(["sleep", "30"], timeout=0.2)
    assert time.monotonic() - begin < 5


def test_what_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what waits for a disk that does not answer."""
    left: list[subprocess.Popen[str]] = []

    def kill(child: subprocess.Popen[str]) -> None:
        left.append(child)

    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "kill", kill)
        begin = time.monotonic()
        with pytest.raises(Failure, match="did not finish"):
            run(["sleep", "30"], timeout=0.2)
        assert time.monotonic() - begin < 5
    for child in left:
        child.kill()
        child.wait()
    assert len(left) == 1


def test_what_a_program_has_started_is_not_waited_for() -> None:
    """It may keep what the program was to write to."""
    begin = time.monotonic()
    with pytest.raises(Failure, match="did not finish"):
        run(["sh", "-c", "sleep 9 & sleep 30"], timeout=0.2)
    assert time.monotonic() - begin < 5


def test_a_signal_ends_the_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupted(self: subprocess.Popen[str], *_args: object, **words: float) -> None:
        started.append(self)
        if "timeout" in words and len(started) == 1:
            raise KeyboardInterrupt
        self.wait()

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "30"])
    assert started[0].returncode == -9


def test_no_input_and_a_fixed_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run(["sh", "-c", "cat; echo $LC_ALL"]).stdout == "C.UTF-8\n"
    assert run(["cat"], stdin="given").stdout == "given"
