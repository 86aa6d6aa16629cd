# SPDX-License-Identifier: GPL-2.0-only
"""Table lines, status lines and replies: what is printed parses back to the same."""

import uuid as uuidlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmremap.dm import messages
from dmremap.dm.lines import (
    CHOICES,
    COUNTERS,
    LATER_COUNTERS,
    LEGS,
    NUMBERS,
    OPTIONS,
    RemapTable,
    Status,
    parse_status,
    parse_status_line,
    parse_table,
    parse_table_line,
)
from dmremap.dm.messages import (
    ListEntry,
    PendingEntry,
    RemapReply,
    ScrubEntry,
    StopReply,
    parse_list,
    parse_pending,
    parse_remap,
    parse_scrub,
    parse_stop,
)
from dmremap.dm.words import LineError

UUID = "6f1c9d0e-3b5a-4c1e-9a77-0123456789ab"
STATUS = (
    "rw 512 3/1000 lost=1 pending=2 bad=4 free=993 doubt=0 read_errors=5 write_errors=6 "
    "transient=7 remapped=3 copies=1 identity=tag seq=9 uuid=" + UUID
)
LATER = " breaker=open moved=10 gone=11 memory=65536 flush_errors=12 main=failing spare=ok"
LATER += " epoch=13 tag=4 errors=medium remap_rate=14"

numbers = st.integers(0, (1 << 64) - 1)
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
uuids = st.uuids().map(str)
unknown_options = words.filter(lambda word: word not in OPTIONS)


@given(
    st.builds(
        RemapTable,
        start=numbers,
        length=numbers,
        main=words,
        spare=words,
        spare_start=numbers,
        spare_len=numbers,
        main_start=numbers,
        uuid=st.none() | uuids,
        errors=st.sampled_from([None, "confirm", "medium"]),
        remap_rate=st.none() | numbers,
        accept_stale=st.booleans(),
        extra=st.lists(unknown_options, max_size=4).map(tuple),
    )
)
def test_table_prints_and_parses_back(line: RemapTable) -> None:
    assert parse_table_line(line.line) == line
    assert parse_table(line.start, line.length, line.params) == line


OTHERS = ("identity", "uuid", "breaker")
keys = st.from_regex(r"\A[a-z][a-z_0-9]{0,11}\Z").filter(
    lambda key: key not in {*COUNTERS, *LATER_COUNTERS, *LEGS, *NUMBERS, *CHOICES, *OTHERS}
)


@given(
    st.builds(
        Status,
        start=numbers,
        length=numbers,
        mode=st.sampled_from(["init", "rw", "ro"]),
        unit=numbers,
        mapped=numbers,
        slots=numbers,
        identity=st.sampled_from(["tag", "id", "size"]),
        uuid=st.none() | uuids,
        breaker=st.sampled_from([None, "closed", "open"]),
        extra=st.lists(st.tuples(keys, words), max_size=4).map(tuple),
        **dict.fromkeys(COUNTERS, numbers),
        **dict.fromkeys(LATER_COUNTERS, st.none() | numbers),
        **dict.fromkeys(LEGS, st.sampled_from([None, "ok", "failing"])),
        **dict.fromkeys(NUMBERS, st.none() | numbers),
        errors=st.sampled_from([None, "confirm", "medium"]),
        remap_rate=st.none() | numbers,
    )
)
def test_status_prints_and_parses_back(status: Status) -> None:
    assert parse_status(status.start, status.length, status.params) == status


@given(st.text(max_size=60))
def test_garbage_is_an_error_and_nothing_else(text: str) -> None:
    for parse in (
        parse_table_line,
        parse_status_line,
        parse_list,
        parse_pending,
        parse_remap,
        parse_scrub,
        parse_stop,
    ):
        with pytest.raises(LineError) as caught:
            parse(text)
        assert caught.value.code == "DMR-E106"
        assert caught.value.hint


@given(st.data())
def test_a_cut_status_line_is_an_error(data: st.DataObject) -> None:
    required = STATUS.partition(" uuid=")[0].split()
    cut = data.draw(st.integers(0, len(required) - 1))
    with pytest.raises(LineError):
        parse_status(0, 8, " ".join(required[:cut]))


def test_the_shortest_table() -> None:
    line = parse_table_line("0 20480 remap /dev/loop17 /dev/loop18 0 20480")
    assert line == RemapTable(0, 20480, "/dev/loop17", "/dev/loop18", 0, 20480)
    assert line.params == "/dev/loop17 /dev/loop18 0 20480"


def test_all_options_and_an_unknown_one() -> None:
    params = (
        "7:0 7:1 8 4096 11 main_start 2048 accept_stale colour 12 "
        f"remap_rate 0 uuid {UUID} errors medium"
    )
    line = parse_table(0, 1000, params)
    assert (line.main_start, line.uuid, line.errors) == (2048, UUID, "medium")
    assert (line.remap_rate, line.accept_stale) == (0, True)
    assert line.extra == ("colour", "12")
    assert parse_table(0, 1000, line.params) == line


def test_options_that_were_not_given_are_not_printed() -> None:
    line = parse_table(0, 1000, "7:0 7:1 8 4096")
    assert (line.errors, line.remap_rate, line.accept_stale) == (None, None, False)
    assert line.params == "7:0 7:1 8 4096"
    assert parse_table(0, 1000, "7:0 7:1 8 4096 1 accept_stale").accept_stale
    # The superblock may say otherwise, so the default is a word like any other.
    given = "7:0 7:1 8 4096 2 errors confirm"
    assert parse_table(0, 1000, given).params == given


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("", "expected"),
        ("a b 0", "expected"),
        ("a b x 8", "spare_start is 'x'"),
        ("a b 0 -8", "spare_len is '-8'"),
        ("a b 0 8 1", "#opts is 1 but 0 words"),
        ("a b 0 8 x uuid", "#opts is 'x'"),
        ("a b 0 8 1 uuid", "uuid lacks its value"),
        ("a b 0 8 2 uuid 1234", "uuid is '1234'"),
        (f"a b 0 8 4 uuid {UUID} uuid {UUID}", "uuid is given twice"),
        ("a b 0 8 2 errors all", "errors is 'all'"),
        ("a b 0 8 2 remap_rate many", "remap_rate is 'many'"),
        ("a b 0 8 1 remap_rate", "remap_rate lacks its value"),
        ("a b 0 8 2 accept_stale accept_stale", "accept_stale is given twice"),
        ("a b 0 8 2 main_start ٣", "main_start is"),
        (f"a b 0 {1 << 64}", "spare_len is"),
    ],
)
def test_what_is_wrong_with_a_table(params: str, says: str) -> None:
    with pytest.raises(LineError, match=says.replace("?", r"\?")):
        parse_table(0, 8, params)


def test_another_target_is_refused() -> None:
    with pytest.raises(LineError, match="linear"):
        parse_table_line("0 8 linear 7:0 0")


@pytest.mark.parametrize(("main", "spare"), [("/dev/my disk", "b"), ("a", "/dev/my disk")])
def test_a_device_with_a_blank_is_never_printed(main: str, spare: str) -> None:
    line = RemapTable(0, 8, main, spare, 0, 8)
    with pytest.raises(LineError, match="one word"):
        _ = line.params


def test_status() -> None:
    status = parse_status(0, 20480, STATUS)
    assert (status.mode, status.unit, status.mapped, status.slots) == ("rw", 512, 3, 1000)
    assert (status.lost, status.pending, status.bad, status.free) == (1, 2, 4, 993)
    assert (status.identity, status.seq, status.uuid) == ("tag", 9, UUID)
    assert uuidlib.UUID(status.uuid)
    assert status.params == STATUS


def test_what_an_older_module_does_not_say_is_not_zero() -> None:
    status = parse_status(0, 20480, STATUS)
    assert (status.breaker, status.moved, status.gone, status.memory) == (None,) * 4
    assert (status.flush_errors, status.main, status.spare) == (None,) * 3
    assert (status.epoch, status.tag, status.errors, status.remap_rate) == (None,) * 4
    assert parse_status(0, 20480, STATUS + " gone=0").gone == 0


def test_the_keys_that_were_appended() -> None:
    status = parse_status(0, 20480, STATUS + LATER)
    assert (status.breaker, status.moved, status.gone, status.memory) == ("open", 10, 11, 65536)
    assert (status.flush_errors, status.main, status.spare) == (12, "failing", "ok")
    assert (status.epoch, status.tag) == (13, 4)
    assert (status.errors, status.remap_rate) == ("medium", 14)
    assert status.params == STATUS + LATER
    assert status.extra == ()


def test_what_the_kernel_appends_is_kept() -> None:
    status = parse_status(0, 8, STATUS + LATER + " shape=round colour=")
    assert status.extra == (("shape", "round"), ("colour", ""))
    assert status.params.endswith(" shape=round colour=")


@pytest.mark.parametrize("nothing", ["uuid=", "uuid=-", ""])
def test_a_set_without_uuid(nothing: str) -> None:
    assert parse_status(0, 8, STATUS.partition("uuid=")[0] + nothing).uuid is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("rw ", "wr ", "mode is 'wr'"),
        ("3/1000", "3", "expected <mapped>/<slots>"),
        ("3/1000", "3/", "slots is ''"),
        ("lost=1", "lost=x", "lost is 'x'"),
        ("lost=1", "lost", "expected <key>=<value>"),
        ("lost=1", "lost=1 lost=1", "lost is there twice"),
        ("lost=1 ", "", "lost missing"),
        ("identity=tag", "identity=face", "identity is 'face'"),
        (UUID, "1-2", "uuid is '1-2'"),
        ("breaker=open", "breaker=ajar", "breaker is 'ajar' and none of closed, open"),
        ("breaker=open", "breaker=open breaker=open", "breaker is there twice"),
        ("moved=10", "moved=-1", "moved is '-1'"),
        ("gone=11", "gone=", "gone is ''"),
        ("memory=65536", "memory=64K", "memory is '64K'"),
        ("flush_errors=12", "flush_errors=-1", "flush_errors is '-1'"),
        ("main=failing", "main=dead", "main is 'dead'"),
        ("spare=ok", "spare=", "spare is ''"),
        ("epoch=13", "epoch=-", "epoch is '-'"),
        ("tag=4", "tag=all", "tag is 'all'"),
        ("errors=medium", "errors=all", "errors is 'all' and none of confirm, medium"),
        ("remap_rate=14", "remap_rate=no", "remap_rate is 'no'"),
    ],
)
def test_what_is_wrong_with_a_status(old: str, new: str, says: str) -> None:
    with pytest.raises(LineError, match=says):
        parse_status(0, 8, (STATUS + LATER).replace(old, new, 1))


def test_list() -> None:
    page = parse_list("1024 8 0 mapped 1\n- 1 1 bad 0\n2048 1 2 lost 3\nnext 3\n")
    assert page.entries == (
        ListEntry(1024, 8, 0, "mapped", 1),
        ListEntry(None, 1, 1, "bad", 0),
        ListEntry(2048, 1, 2, "lost", 3),
    )
    assert page.next == 3
    assert parse_list("end") == messages.ListPage((), None)


def test_pending() -> None:
    page = parse_pending("8 1\n16 8\nend\n")
    assert page == messages.PendingPage((PendingEntry(8, 1), PendingEntry(16, 8)), None)
    assert parse_pending("next 512").next == 512


def test_scrub() -> None:
    page = parse_scrub("3 258 written\n40 255 failed\nnext 41\n")
    assert page == messages.ScrubPage(
        (ScrubEntry(3, 258, "written"), ScrubEntry(40, 255, "failed")), 41
    )
    assert parse_scrub("end") == messages.ScrubPage((), None)
    with pytest.raises(LineError, match="result"):
        parse_scrub("3 258 good\nend")


@pytest.mark.parametrize("reply", ["", "1024 8 0 mapped 1", "next", "next x", "1 2 3\nend"])
def test_a_reply_that_was_cut_is_an_error(reply: str) -> None:
    for parse in (parse_list, parse_pending, parse_scrub):
        with pytest.raises(LineError):
            parse(reply)


entries = st.lists(
    st.builds(
        ListEntry,
        sector=st.none() | numbers,
        sectors=numbers,
        slot=numbers,
        state=st.sampled_from(["mapped", "lost", "bad"]),
        generation=numbers,
    )
)


@given(entries, st.none() | numbers)
def test_list_prints_and_parses_back(rows: list[ListEntry], following: int | None) -> None:
    last = "end" if following is None else f"next {following}"
    page = parse_list("\n".join([*(row.line for row in rows), last]))
    assert page == messages.ListPage(tuple(rows), following)


@given(st.lists(st.builds(PendingEntry, numbers, numbers)))
def test_pending_prints_and_parses_back(rows: list[PendingEntry]) -> None:
    page = parse_pending("\n".join([*(row.line for row in rows), "end"]))
    assert page == messages.PendingPage(tuple(rows), None)


@given(
    st.lists(st.builds(ScrubEntry, numbers, numbers, st.sampled_from(["written", "failed"]))),
    st.none() | numbers,
)
def test_scrub_prints_and_parses_back(rows: list[ScrubEntry], following: int | None) -> None:
    last = "end" if following is None else f"next {following}"
    page = parse_scrub("\n".join([*(row.line for row in rows), last]))
    assert page == messages.ScrubPage(tuple(rows), following)


@pytest.mark.parametrize(
    ("reply", "parsed"),
    [
        ("done 8 of 8", RemapReply(8, 8)),
        ("done 3 of 8\n", RemapReply(3, 8)),
        ("done 0 of 8 unreadable 2048\n", RemapReply(0, 8, "unreadable", 2048)),
        ("done 7 of 8 full 7", RemapReply(7, 8, "full", 7)),
        ("done 1 of 8 failed 1", RemapReply(1, 8, "failed", 1)),
    ],
)
def test_remap(reply: str, parsed: RemapReply) -> None:
    assert parse_remap(reply) == parsed
    assert parsed.line == reply.strip()


def test_stop() -> None:
    assert parse_stop("epoch 4611686018427387904 tag 5\n") == StopReply(1 << 62, 5)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("epoch 3", "expected epoch <number> tag <copies>"),
        ("tag 3 epoch 5", "expected epoch <number> tag <copies>"),
        ("epoch x tag 5", "epoch is 'x'"),
        ("epoch 3 tag -1", "tag is '-1'"),
    ],
)
def test_what_is_wrong_with_a_reply_to_stop(reply: str, says: str) -> None:
    with pytest.raises(LineError, match=says):
        parse_stop(reply)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "expected done <units> of <units>"),
        ("done 3", "expected done <units> of <units>"),
        ("done 3 of 8 full", "expected done <units> of <units>"),
        ("end 3 of 8", "expected done <units> of <units>"),
        ("done x of 8", "done is 'x'"),
        ("done 3 of -8", "total is '-8'"),
        ("done 9 of 8", "9 units of 8 cannot be done"),
        ("done 3 of 8 tired 3", "obstacle is 'tired' and none of unreadable, full, failed"),
        ("done 3 of 8 full x", "sector is 'x'"),
    ],
)
def test_what_is_wrong_with_a_reply_to_remap(reply: str, says: str) -> None:
    with pytest.raises(LineError, match=says):
        parse_remap(reply)


@given(numbers, numbers, st.none() | st.sampled_from(["unreadable", "full", "failed"]), numbers)
def test_remap_prints_and_parses_back(
    one: int, other: int, obstacle: messages.Obstacle | None, sector: int
) -> None:
    where = None if obstacle is None else sector
    reply = RemapReply(min(one, other), max(one, other), obstacle, where)
    assert parse_remap(reply.line) == reply


def test_messages() -> None:
    assert messages.list_message(0, 128) == "list 0 128"
    assert messages.pending_message(8, 16) == "pending 8 16"
    assert messages.remap_message(8, 16) == "remap 8 16"
    assert messages.remap_message(8, 16, lost=True) == "remap 8 16 lost"
