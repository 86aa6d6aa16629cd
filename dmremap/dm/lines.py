# SPDX-License-Identifier: GPL-2.0-only
"""Table lines and status lines of the `remap` target.

Everything here is pure: text in, frozen records out, and back.  Sectors are
512 bytes, as everywhere in device-mapper.  What the kernel appends in a later
version (unknown options, unknown status keys) is kept and printed again, never
dropped and never an error; what is missing or malformed is a `LineError`.
"""

import uuid as uuidlib
from dataclasses import dataclass
from typing import Literal, cast, get_args

from dmremap.dm.words import LineError, choice, number

TARGET = "remap"
SECTOR = 512
"""Bytes in a sector."""

ErrorPolicy = Literal["confirm", "medium"]
Mode = Literal["init", "rw", "ro"]
Identity = Literal["tag", "id", "size"]
Breaker = Literal["closed", "open"]
Leg = Literal["ok", "failing"]


def _uuid(text: str, line: str) -> str:
    """Check the 36-character form that kernel and superblock use."""
    try:
        canonical = str(uuidlib.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text.lower():
        raise LineError(f"uuid is {text!r} and not of the 36-character form, in {line!r}")
    return canonical


def _device(text: str, what: str) -> str:
    """A device in a table line is one word: DM splits the line at white space."""
    if not text or text.split() != [text]:
        raise LineError(f"{what} {text!r} is not one word")
    return text


# ---------------------------------------------------------------- table line

OPTIONS = ("main_start", "uuid", "errors", "remap_rate", "accept_stale")
"""The options of a table line; accept_stale has no value."""


@dataclass(frozen=True, slots=True)
class RemapTable:
    """One `remap` target of a device's table.

    start, length: sectors of the mapped device.  main, spare: as in the line,
    a path or major:minor.  spare_start, spare_len: sectors of the spare, the
    area.  main_start: sector of main that is sector `start` of the mapped
    device.  errors: which errors may be a bad block.  remap_rate: pieces
    (physical blocks of main) mapped in a minute before the breaker opens, 0 for
    no limit.  Both are None where the line has no word of it, and the set's
    superblock says what counts.
    accept_stale: start a read-only table although parts of the set are gone.
    extra: option words this version does not know, in their order.
    """

    start: int
    length: int
    main: str
    spare: str
    spare_start: int
    spare_len: int
    main_start: int = 0
    uuid: str | None = None
    errors: ErrorPolicy | None = None
    remap_rate: int | None = None
    accept_stale: bool = False
    extra: tuple[str, ...] = ()

    @property
    def params(self) -> str:
        """The part behind the target's name, as the DM ioctl takes it."""
        words: list[str] = []
        if self.main_start:
            words += ["main_start", str(self.main_start)]
        if self.uuid is not None:
            words += ["uuid", self.uuid]
        if self.errors is not None:
            words += ["errors", self.errors]
        if self.remap_rate is not None:
            words += ["remap_rate", str(self.remap_rate)]
        if self.accept_stale:
            words.append("accept_stale")
        words += self.extra
        line = [
            _device(self.main, "the main device"),
            _device(self.spare, "the spare device"),
            str(self.spare_start),
            str(self.spare_len),
        ]
        if words:
            line += [str(len(words)), *words]
        return " ".join(line)

    @property
    def line(self) -> str:
        """The whole line, as `dmsetup create` takes it."""
        return f"{self.start} {self.length} {TARGET} {self.params}"


def parse_table(start: int, length: int, params: str) -> RemapTable:
    """Parse the parameters of a `remap` target; start and length in sectors."""
    words = params.split()
    if len(words) < 4:
        raise LineError(
            "expected <main_dev> <spare_dev> <spare_start> <spare_len> "
            f"[<#opts> <opt>...], got {params!r}"
        )
    main, spare, spare_start, spare_len = words[:4]
    options = words[5:]
    if len(words) > 4 and number(words[4], "#opts", params) != len(options):
        raise LineError(f"#opts is {words[4]} but {len(options)} words follow, in {params!r}")

    main_start = 0
    uuid: str | None = None
    errors: str | None = None
    remap_rate: int | None = None
    extra: list[str] = []
    seen: set[str] = set()
    rest = iter(options)
    for word in rest:
        if word not in OPTIONS:
            # How many words an unknown option takes is unknown too, so the
            # words are kept as they are, in their order.
            extra.append(word)
            continue
        if word in seen:
            raise LineError(f"option {word} is given twice, in {params!r}")
        seen.add(word)
        if word == "accept_stale":
            continue
        value = next(rest, None)
        if value is None:
            raise LineError(f"option {word} lacks its value, in {params!r}")
        if word == "main_start":
            main_start = number(value, word, params)
        elif word == "uuid":
            uuid = _uuid(value, params)
        elif word == "errors":
            errors = choice(value, get_args(ErrorPolicy), word, params)
        else:
            remap_rate = number(value, word, params)
    return RemapTable(
        start=start,
        length=length,
        main=main,
        spare=spare,
        spare_start=number(spare_start, "spare_start", params),
        spare_len=number(spare_len, "spare_len", params),
        main_start=main_start,
        uuid=uuid,
        errors=cast("ErrorPolicy | None", errors),
        remap_rate=remap_rate,
        accept_stale="accept_stale" in seen,
        extra=tuple(extra),
    )


def split_line(line: str) -> tuple[int, int, str, str]:
    """Split `<start> <length> <target> <params>` as `dmsetup` prints it.

    Start and length are in sectors.  `dmsetup` puts `<name>: ` before the line
    where it is asked about more than one device; strip it first.
    """
    words = line.strip().split(maxsplit=3)
    if len(words) < 3:
        raise LineError(f"expected <start> <length> <target> <parameters>, got {line!r}")
    start = number(words[0], "start", line)
    length = number(words[1], "length", line)
    return start, length, words[2], words[3] if len(words) == 4 else ""


def _remap_line(line: str) -> tuple[int, int, str]:
    start, length, target, params = split_line(line)
    if target != TARGET:
        raise LineError(f"target is {target!r} and not {TARGET!r}, in {line!r}")
    return start, length, params


def parse_table_line(line: str) -> RemapTable:
    """Parse a whole table line of a `remap` target."""
    return parse_table(*_remap_line(line))


# --------------------------------------------------------------- status line


@dataclass(frozen=True, slots=True)
class Status:
    """What a `remap` target says of itself.

    start, length: sectors of the mapped device.  unit: bytes.  mapped: slots
    in use for a unit, those whose content is lost included.  pending: units
    that main could not read.  doubt: units whose commit failed half-way.
    read_errors, write_errors, transient, remapped, moved, seq count up from the
    load of the table.  copies: metadata copies that live on a stand-in.
    breaker: open while nothing new is mapped, for too much was in a minute.
    moved: units that went to another slot because theirs refused a write.
    gone: table blocks that no copy was left of at the load.  memory: bytes of
    kernel memory.  flush_errors: flushes that failed since the load, on either
    device.  main, spare: whether that device as a whole does what it is asked
    for, as the last probe or command said.  epoch: number of the set's epoch.
    tag: copies of the tag on main that say so, 0 to 5.  errors, remap_rate: what
    counts of what may be chosen, by the table line, by the superblock or by default.
    These, from breaker on, are None where the module is older and does not say: that
    is neither zero nor ok.
    extra: key and value of what this version does not know, in their order.
    """

    start: int
    length: int
    mode: Mode
    unit: int
    mapped: int
    slots: int
    lost: int
    pending: int
    bad: int
    free: int
    doubt: int
    read_errors: int
    write_errors: int
    transient: int
    remapped: int
    copies: int
    identity: Identity
    seq: int
    uuid: str | None = None
    breaker: Breaker | None = None
    moved: int | None = None
    gone: int | None = None
    memory: int | None = None
    flush_errors: int | None = None
    main: Leg | None = None
    spare: Leg | None = None
    epoch: int | None = None
    tag: int | None = None
    errors: ErrorPolicy | None = None
    remap_rate: int | None = None
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def params(self) -> str:
        """The line as the kernel prints it, behind the target's name."""
        pairs = [(key, str(getattr(self, key))) for key in _COUNTERS_BEFORE_IDENTITY]
        pairs += [("identity", self.identity), ("seq", str(self.seq))]
        for key in ("uuid", "breaker", *LATER_COUNTERS, *LEGS, *NUMBERS, *CHOICES):
            if (value := getattr(self, key)) is not None:
                pairs.append((key, str(value)))
        head = f"{self.mode} {self.unit} {self.mapped}/{self.slots}"
        return " ".join([head, *(f"{key}={value}" for key, value in (*pairs, *self.extra))])


_COUNTERS_BEFORE_IDENTITY = (
    "lost",
    "pending",
    "bad",
    "free",
    "doubt",
    "read_errors",
    "write_errors",
    "transient",
    "remapped",
    "copies",
)
COUNTERS = (*_COUNTERS_BEFORE_IDENTITY, "seq")
"""The numbers that every status line has; each is a field of Status."""

LATER_COUNTERS = ("moved", "gone", "memory", "flush_errors")
"""The numbers that were appended later; a field is None where the key is not there."""

LEGS = ("main", "spare")
"""The two devices of a set; status says of each whether it is failing."""

NUMBERS = ("epoch", "tag")
"""What was appended after these, in the same way."""

CHOICES = ("errors", "remap_rate")
"""What may be chosen, for a set or in its table line."""

_KEYS = (*COUNTERS, "identity", "uuid", "breaker", *LATER_COUNTERS, *LEGS, *NUMBERS, *CHOICES)
_UUID_NONE = ("", "-")


def parse_status(start: int, length: int, params: str) -> Status:
    """Parse the status of a `remap` target; start and length in sectors.

    The ABI only ever grows at the end, so every key of the first version is
    required: a counter that is not there is not zero.  A later one may be
    missing, for the module may be older than this program.
    """
    words = params.split()
    if len(words) < 3:
        raise LineError(
            f"expected <init|rw|ro> <unit> <mapped>/<slots> <key>=<value>..., got {params!r}"
        )
    mode = choice(words[0], get_args(Mode), "mode", params)
    unit = number(words[1], "unit", params)
    mapped, slash, slots = words[2].partition("/")
    if not slash:
        raise LineError(f"expected <mapped>/<slots>, got {words[2]!r}, in {params!r}")

    known: dict[str, str] = {}
    extra: list[tuple[str, str]] = []
    for word in words[3:]:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise LineError(f"expected <key>=<value>, got {word!r}, in {params!r}")
        if key not in _KEYS:
            extra.append((key, value))
        elif key in known:
            raise LineError(f"{key} is there twice, in {params!r}")
        else:
            known[key] = value
    missing = [key for key in (*COUNTERS, "identity") if key not in known]
    if missing:
        raise LineError(f"{', '.join(missing)} missing, in {params!r}")

    counters = {key: number(known[key], key, params) for key in COUNTERS}
    later = {
        key: number(known[key], key, params)
        for key in (*LATER_COUNTERS, *NUMBERS, "remap_rate")
        if key in known
    }
    uuid = known.get("uuid", "")
    breaker = None
    if "breaker" in known:
        breaker = choice(known["breaker"], get_args(Breaker), "breaker", params)
    errors = None
    if "errors" in known:
        errors = choice(known["errors"], get_args(ErrorPolicy), "errors", params)
    legs = {key: choice(known[key], get_args(Leg), key, params) for key in LEGS if key in known}
    return Status(
        start=start,
        length=length,
        mode=cast("Mode", mode),
        unit=unit,
        mapped=number(mapped, "mapped", params),
        slots=number(slots, "slots", params),
        identity=cast(
            "Identity", choice(known["identity"], get_args(Identity), "identity", params)
        ),
        uuid=None if uuid in _UUID_NONE else _uuid(uuid, params),
        breaker=cast("Breaker | None", breaker),
        main=cast("Leg | None", legs.get("main")),
        spare=cast("Leg | None", legs.get("spare")),
        errors=cast("ErrorPolicy | None", errors),
        extra=tuple(extra),
        **counters,
        **later,
    )


def parse_status_line(line: str) -> Status:
    """Parse a whole status line of a `remap` target."""
    return parse_status(*_remap_line(line))
