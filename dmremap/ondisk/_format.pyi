# SPDX-License-Identifier: GPL-2.0-only
# The parts of the compiled module that dmremap.ondisk uses. Structures are opaque here: their
# fields are little-endian and go through h16, h32 and h64.
from typing import Any, Final

class Ffi:
    NULL: Final[Any]
    def new(self, ctype: str, init: object = ...) -> Any: ...
    def cast(self, ctype: str, value: object) -> Any: ...
    def string(self, cdata: object, maxlen: int = ...) -> bytes: ...
    def buffer(self, cdata: object, size: int = ...) -> Any: ...
    def from_buffer(self, ctype: str, data: object) -> Any: ...
    def addressof(self, cdata: object, *fields: str) -> Any: ...
    def sizeof(self, ctype: str) -> int: ...
    def offsetof(self, ctype: str, field: str) -> int: ...

class Lib:
    BLKRRPART: int
    DMR_VERSION: int
    DMR_BLOCK_SIZE: int
    DMR_BLOCK_SECTORS: int
    DMR_SB0_BLOCK: int
    DMR_SB1_BLOCK: int
    DMR_STANDIN_FIRST: int
    DMR_STANDIN_LAST: int
    DMR_HEAD_BLOCKS: int
    DMR_MAX_SEGMENTS: int
    DMR_MAX_SLOTS: int
    DMR_MIN_AREA_BLOCKS: int
    DMR_OWN_FIRST: int
    DMR_OWN_LAST: int
    DMR_NR_OWN: int
    DMR_OWN_SIZE: int
    DMR_REFUGE_FIRST: int
    DMR_REFUGE_STEP: int
    DMR_NR_REFUGES: int
    DMR_NR_TAGS: int
    DMR_NR_SCRATCH: int
    DMR_TAG_SECTORS: int
    DMR_NAME_SIZE: int
    DMR_SERIAL_SIZE: int
    DMR_ENTRIES: int
    DMR_GEN_MAX: int
    DMR_EPOCH_MAX: int
    DMR_INCOMPAT_SUPERSEDED: int
    DMR_MAIN_TAGGED: int
    DMR_CHOSE_CONFIRM: int
    DMR_CHOSE_MEDIUM: int
    DMR_CHOSE_RATE: int
    DMR_SAME_HISTORY: int
    DMR_OLDER_SPARE: int
    DMR_PARTED: int
    DMR_MAGIC_SIZE: int
    DMR_UNIT_MIN: int
    DMR_UNIT_MAX: int
    DMR_NR_STANDINS: int
    DMR_SEQ_MAX: int
    DMR_COMPAT_KNOWN: int
    DMR_RO_COMPAT_KNOWN: int
    DMR_INCOMPAT_KNOWN: int
    DMR_TYPE_SUPER: int
    DMR_TYPE_TABLE: int
    DMR_TYPE_TAG: int
    DMR_TYPE_OWN: int
    DMR_FORMATTING: int
    DMR_READY: int
    DMR_FREE: int
    DMR_MAPPED: int
    DMR_LOST: int
    DMR_BAD: int

    def dmr_crc32c_raw(self, crc: int, p: object, len: int) -> int: ...
    def dmr_block_crc(self, block: object, place: int) -> int: ...
    def dmr_seal(
        self, block: object, type: int, uuid: bytes, seq: int, home: int, place: int
    ) -> None: ...
    def dmr_header_ok(self, block: object, type: int, place: int) -> int: ...
    def dmr_same_body(self, a: object, b: object) -> int: ...
    def dmr_segment_slots(self, blocks: int, unit: int) -> int: ...
    def dmr_table_blocks(self, slots: int) -> int: ...
    def dmr_unit_ok(self, unit: int) -> int: ...
    def dmr_tag_block(self, copy: int) -> int: ...
    def dmr_scratch_block(self, i: int) -> int: ...
    def dmr_is_refuge(self, block: int) -> int: ...
    def dmr_history(self, sb: object, tag: object) -> int: ...
    def dmr_tag_check(self, tag: object) -> Any: ...
    def dmr_super_check(self, sb: object) -> Any: ...
    def dmr_table_check(self, t: object, used: int, units: int) -> Any: ...
    def dmr_h16(self, x: int) -> int: ...
    def dmr_h32(self, x: int) -> int: ...
    def dmr_h64(self, x: int) -> int: ...
    def dmr_is_zero(self, p: object, len: int) -> int: ...

ffi: Final[Ffi]
lib: Final[Lib]
