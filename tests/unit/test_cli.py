# SPDX-License-Identifier: GPL-2.0-only
"""The command line: usage, output, exit codes, cold start."""

import json
import os
import re
import subprocess
import sys
from importlib import resources
from types import SimpleNamespace
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner

import dmremap
from dmremap import Answer, Sets
from dmremap.cli import common, main
from dmremap.cli._make import sectors
from dmremap.cli.app import VERBS, LazyGroup, group
from dmremap.dm.lines import parse_status
from dmremap.errors import DmRemapError, Exit, Failure, Partial, Usage, error

SCHEMA = json.loads(resources.files("dmremap").joinpath("schema/dmremap-1.json").read_text())


def valid(text: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    return whole


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "appended",
    [
        "",
        " breaker=open moved=1 gone=2 memory=4096",
        " breaker=open moved=1 gone=2 memory=4096 flush_errors=3 main=failing spare=ok",
        " breaker=open spare=ok epoch=1 tag=5 errors=medium remap_rate=0",
    ],
)
def test_the_schema_knows_every_status(appended: str) -> None:
    status = parse_status(
        0,
        8,
        "rw 512 0/10 lost=0 pending=0 bad=0 free=10 doubt=0 read_errors=0 write_errors=0 "
        f"transient=0 remapped=0 copies=0 identity=tag seq=0{appended}",
    )
    one = {"name": "a", "uuid": None, "device": "b", "targets": [{"table": {}, "status": status}]}
    whole = json.loads(common.to_json(common.envelope("status", {"sets": [one]})))
    jsonschema.Draft202012Validator(SCHEMA).validate(whole)
    for key, value in (("breaker", "ajar"), ("spare", "gone"), ("errors", "all")):
        wrong = json.loads(json.dumps(whole))
        wrong["data"]["sets"][0]["targets"][0]["status"][key] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(SCHEMA).validate(wrong)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dmremapctl {dmremap.__version__}\n"


def test_help_lists_every_verb_without_importing_it() -> None:
    code = (
        "import sys; from dmremap.cli import main; main(['--help']); "
        "print(sorted(m for m in sys.modules if m.startswith('dmremap.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("['dmremap.cli.app', 'dmremap.cli.common']\n")
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_version_imports_next_to_nothing() -> None:
    code = "import sys; from dmremap.cli import main; main(['--version']); print(*sys.modules)"
    # What counts lines is imported before anything else, and imports more.
    env = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"click", "rich", "pyudev", "pyroute2", "_cffi_backend", "json"}


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    done = CliRunner().invoke(group, [verb, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_verb_is_imported_when_asked_for() -> None:
    context = click.Context(group)
    assert isinstance(group, LazyGroup)
    assert group.get_command(context, "nosuch") is None
    found = group.get_command(context, "explain")
    assert found is not None
    assert found.name == "explain"


@pytest.mark.parametrize(
    "args",
    [
        ["nosuch"],
        ["create"],
        ["create", "/dev/a"],
        ["create", "/dev/a", "/dev/b", "--spare-size", "12x"],
        ["status", "--nosuch"],
        ["assemble"],
        ["assemble", "--all", "name"],
        ["remove"],
        ["explain", "DMR-E999"],
        ["list", "-o", "xml"],
    ],
)
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("dmremapctl: ")
    assert "[DMR-E20" in out.err


@pytest.mark.parametrize("args", [[], ["module"]])
def test_no_command_is_wrong_usage_with_help(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith(f"Usage: {' '.join(['dmremapctl', *args])} ")
    assert "\nCommands:\n" in out.err


def test_wrong_usage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "-o", "json"]) == 2
    out = capsys.readouterr()
    assert out.err == ""
    whole = valid(out.out)
    assert whole["command"] == "create"
    assert whole["error"]["exit"] == 2
    assert whole["data"] is None


@pytest.mark.parametrize(
    "args",
    [
        ["create", "/dev/a", "/dev/b"],
        ["adopt", "/dev/a", "/dev/b"],
        ["assemble", "--all"],
        ["remove", "x"],
        ["scrub", "x", "--metadata"],
        ["module", "load"],
        ["module", "unload"],
    ],
)
def test_changing_needs_root(
    args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(args) == 6
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.splitlines()[0].startswith("dmremapctl: only root can ")


@pytest.mark.parametrize("args", [["list"], ["status"], ["module", "status"]])
def test_looking_needs_no_root(
    args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([*args, "-o", "json"]) == 0
    valid(capsys.readouterr().out)


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "e401"]) == 0
    assert "Unmount it first." in capsys.readouterr().out
    assert main(["explain", "DMR-H101", "-o", "json"]) == 0
    whole = valid(capsys.readouterr().out)
    assert whole["data"]["codes"][0]["code"] == "DMR-H101"


def test_jsonl_is_one_envelope_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "-ojsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 50
    assert all(len(valid(line)["data"]["codes"]) == 1 for line in lines)


@pytest.mark.parametrize(
    ("args", "form"),
    [
        (["status"], "table"),
        (["status", "-o", "json"], "json"),
        (["status", "--output=jsonl"], "jsonl"),
        (["-ojson"], "json"),
        (["status", "--", "-o", "json"], "table"),
        (["status", "-o"], "table"),
        (["status", "-o", "xml"], "table"),
    ],
)
def test_wanted_format(args: list[str], form: str) -> None:
    assert common.wanted_format(args) == form


def test_partial_has_data_and_error(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Sets(sets=(), error=Partial("DMR-E801", "one failed"))
    common.show(common.Result(answer, "words"), "remove", "json")
    whole = json.loads(capsys.readouterr().out)
    assert whole["error"]["exit"] == 8
    assert whole["data"] == {"sets": []}


def test_brackets_survive(capsys: pytest.CaptureFixture[str]) -> None:
    common.write(common.table(["NAME"], [["a[b]c"], ["[red]x[/red]"]]))
    assert capsys.readouterr().out.splitlines() == ["NAME", "a[b]c", "[red]x[/red]"]


def test_brackets_survive_rich_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    text = common.table(["NAME", "PATH"], [["a[b]c", "/dev/disk/by-id/" + "x" * 60]])
    assert "a[b]c" in text
    assert "\x1b" not in text
    assert all(len(line) <= 40 for line in text.splitlines())
    assert "…" not in text


def test_nothing_is_cut_in_a_pipe() -> None:
    path = "/dev/disk/by-id/" + "x" * 200
    assert path in common.table(["A", "B"], [[path, path]])


def test_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a\xff")
    common.write(name + "\n")
    assert json.loads(common.to_json([name])) == [name]
    assert capsys.readouterr().out == "a\\udcff\n"


def test_a_name_is_no_command_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b]0;title\x07b\nfake: row\x9b2J"
    shown = "a\\x1b]0;title\\x07b\\nfake: row\\x9b2J"
    common.write(common.table(["NAME"], [[name]]) + "\n")
    common.write(common.fields([("name", name)]) + "\n")
    common.show(common.Result(Sets(sets=(), warnings=(name,)), f"set {name}"), "list", "table")
    common.show_error(Failure("DMR-E100", name), "list", "table")
    out = capsys.readouterr()
    assert out.out.splitlines()[:3] == ["NAME", shown, f"name: {shown}"]
    assert out.err.splitlines()[:2] == [f"warning: {shown}", f"dmremapctl: {shown} [DMR-E100]"]
    assert not set("\x1b\x07\x9b") & set(out.out + out.err)


def test_notes_are_in_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    err = Failure("DMR-E100", "first")
    err.add_note("also: second [DMR-E503]")
    common.show_error(err, "create", "json")
    assert valid(capsys.readouterr().out)["error"]["notes"] == ["also: second [DMR-E503]"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("4096s", 4096), ("4K", 8), ("4KB", 8), ("4KiB", 8), ("1t", 2 << 30)],
)
def test_sectors(text: str, expected: int) -> None:
    assert sectors(click.Context(group), click.Option(["--x"]), text) == expected


@pytest.mark.parametrize(
    "text", ["4096B", "4096iB", "4096sB", "-1", "1.5G", "", "K", "9007199254740992T", "9" * 18]
)
def test_no_sectors(text: str) -> None:
    with pytest.raises(click.BadParameter):
        sectors(click.Context(group), click.Option(["--x"]), text)


def test_confirm_never_waits_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    common.confirm("Go on?", yes=True)
    with pytest.raises(Usage) as caught:
        common.confirm("Go on?", yes=False)
    assert caught.value.code == "DMR-E202"


def test_size() -> None:
    assert [common.size(n) for n in (1, 2, 3, 2048, 1 << 21, 3 << 20)] == [
        "512 B",
        "1 KiB",
        "1.5 KiB",
        "1 MiB",
        "1 GiB",
        "1.5 GiB",
    ]


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize(
    ("wrong", "code", "status"),
    [
        (OSError(5, "Input/output error"), "DMR-E100", 1),
        (ZeroDivisionError("planted"), "DMR-E100", 1),
        (KeyboardInterrupt(), "DMR-E109", 130),
    ],
)
def test_a_bug_is_an_error_too(
    form: str,
    wrong: BaseException,
    code: str,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dmremap.sets import live

    def broken(_names: object) -> None:
        raise wrong

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(live, "find", broken)
    assert main(["status", "-o", form]) == status
    out = capsys.readouterr()
    if form == "table":
        assert out.out == ""
        assert code in out.err.strip().splitlines()[0]
        assert "Traceback" not in out.err
    else:
        assert out.err.strip() == ""
        error = valid(out.out)["error"]
        assert (error["code"], error["exit"]) == (code, status)


@pytest.mark.parametrize("args", ["--version", "explain e401", "version -o json", "explain --help"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-", "<&- >&-", ">&- 2>&-"])
def test_output_that_cannot_be_written(args: str, where: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m dmremap {args} {where}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    if "2>" not in where:
        assert done.stderr.startswith("dmremapctl: ")
        assert "DMR-E108" in done.stderr or "-" in args  # what click writes itself it reports so
        assert len(done.stderr.splitlines()) == 2


def test_a_closed_stderr_does_not_change_how_it_ended() -> None:
    line = f"{sys.executable} -m dmremap check /nope 2>&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == Exit.NOT_FOUND


@pytest.mark.parametrize("ignored", [False, True])
def test_a_stop_is_an_interrupt_unless_it_is_ignored(ignored: bool) -> None:
    program = """
import os, signal, sys
from dmremap.cli import app, main
if "ignored" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
app._run = lambda *_: os.kill(os.getpid(), signal.SIGHUP) or 0
try:
    print(main(["explain", "e401"]))
except KeyboardInterrupt:
    print("interrupted")
"""
    words = [sys.executable, "-c", program, *(["ignored"] if ignored else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == ("0\n" if ignored else "interrupted\n")


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e300", "soon"])
def test_a_time_that_nobody_can_wait(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "--once", "--rescan", text]) == Exit.USAGE
    assert "DMR-E201" in capsys.readouterr().err


def test_errors_know_their_exit_code() -> None:
    assert isinstance(error("DMR-E100", "x"), Failure)
    for cls in DmRemapError.__subclasses__():
        assert cls.exit in Exit


@pytest.fixture
def one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set runs whose main fails as a whole and has failed two flushes."""
    from dmremap.dm.lines import parse_table
    from dmremap.sets import live

    status = parse_status(
        0,
        8,
        "rw 512 0/10 lost=0 pending=0 bad=0 free=10 doubt=0 read_errors=0 write_errors=0 "
        "transient=0 remapped=0 copies=0 identity=tag seq=1 breaker=closed moved=0 gone=0 "
        "memory=4096 flush_errors=2 main=failing spare=ok epoch=2 tag=5 errors=medium remap_rate=0",
    )
    device = SimpleNamespace(
        name="data", suspended=False, live_table=True, read_only=False, open_count=0
    )
    running = SimpleNamespace(
        name="data",
        uuid=None,
        path="/dev/mapper/data",
        device=device,
        tables=(parse_table(0, 8, "/dev/no-main /dev/no-spare 0 2072"),),
        status=(status,),
    )
    monkeypatch.setattr(live, "find", lambda _names=(): [running])
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("one_set")
def test_every_command_that_shows_sets_says_which_device_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "--running"]) == 0
    assert "main is failing" in capsys.readouterr().out
    assert main(["list", "--running", "-o", "json"]) == 0
    (listed,) = valid(capsys.readouterr().out)["data"]["sets"]
    assert listed["problems"] == ["main is failing"]
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert "/dev/no-main (failing)" in shown
    assert "/dev/no-spare (failing)" not in shown
    assert main(["status", "-o", "json"]) == 0
    (row,) = valid(capsys.readouterr().out)["data"]["sets"]
    now = row["targets"][0]["status"]
    assert (now["flush_errors"], now["main"], now["spare"]) == (2, "failing", "ok")
    # What counts is in the status, whoever chose it; the line has no word of it.
    assert (now["errors"], now["remap_rate"]) == ("medium", 0)
    line = row["targets"][0]["table"]
    assert (line["errors"], line["remap_rate"]) == (None, None)
    assert re.search(r"errors: +medium\nremap rate: +no limit\n", shown)
    assert main(["health"]) == 1
    shown = capsys.readouterr().out
    assert "data: FAILED" in shown
    assert "DMR-H105" in shown
    assert "DMR-H307" in shown


@pytest.mark.parametrize("code", ["DMR-H105", "DMR-H205", "DMR-H307"])
def test_what_fails_as_a_whole_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 0
    assert code in capsys.readouterr().out


@pytest.mark.parametrize("module", ["dmremap.dm._libdm", "dmremap.ondisk._format", "click"])
def test_what_is_not_installed_is_named(module: str) -> None:
    """As where libdevmapper is missing, or an extension was built for another Python."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from dmremap.cli import main; "
        "sys.exit(main(['version']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert module in done.stderr
    assert "[DMR-E308]" in done.stderr
    assert "Traceback" not in done.stderr


class Clock:
    """Stands in for the module time: it is as late as somebody says."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(common, "time", made)
    return made


def test_progress_says_how_long_it_takes(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    step = common.progress()
    assert step

    def shown(after: float, done: int) -> str:
        clock.now = 100 + after
        step("reading", done, 8000)
        return capsys.readouterr().err

    assert shown(0, 0) == "\rreading: 0 %"
    assert shown(0.5, 10) == ""  # nothing is known yet
    assert shown(5, 100) == "\rreading: 1 % (7 min left)"
    assert shown(5.1, 102) == ""  # as it was
    assert shown(40, 4000) == "\rreading: 50 % (40 s left)"
    assert shown(79, 7900) == "\rreading: 98 % (1 s left) "
    assert shown(80, 8000) == "\rreading: 100 %          \n"


def test_what_takes_long_is_told_without_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert common.progress() is None
    for total, said in ((100_000, "reading: 17 min left\n"), (2000, "")):
        step = common.progress(told=True)
        assert step
        for _ in range(10):
            clock.now += 0.3
            step("reading", int((clock.now - 100) * 100) % 1000, total)
        assert capsys.readouterr().err == said
        clock.now = 100


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_line_of_progress_is_ended(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an error, and before a result of what was cut short; once."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    step = common.progress()
    assert step
    step("reading", 1, 4)
    common.show_error(Failure("DMR-E102", "too late"), "check", form)
    common.show(common.Result(Answer(), "that is all"), "check", form)
    out = capsys.readouterr()
    assert out.err.startswith("\rreading: 25 %\n")
    assert out.err.count("\n\n") == 0
    step("reading", 4, 4)
    common.show(common.Result(Answer(), "that is all"), "check", form)
    assert capsys.readouterr().err == "\rreading: 100 %\n"
