"""An RDB file is known by its ends, and a copy that differs in one bit from what was stored is refused."""

from __future__ import annotations

import asyncio
import hashlib
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redkeep.agent.restoring import verify
from redkeep.errors import Refused
from redkeep.model.orders import RestoreCopy
from redkeep.redis.checker import reason_of
from redkeep.redis.rdb import TAIL_BYTES, check_ends, parse_header

words = st.text(string.ascii_letters + "-", min_size=1, max_size=80)
numbers = st.integers(-(2**31), 2**31 - 1).map(str)
fields = st.dictionaries(words, words | numbers, max_size=5)


def encoded(text: str) -> bytes:
    """As Redis writes strings: what is a number as one, short lengths in one byte, others in two."""
    if text.lstrip("-").isdigit():
        width = next(width for width in (1, 2, 4) if -(2 ** (8 * width - 1)) <= int(text) < 2 ** (8 * width - 1))
        return bytes([0xC0 | {1: 0, 2: 1, 4: 2}[width]]) + int(text).to_bytes(width, "little", signed=True)
    length = len(text)
    return (bytes([length]) if length < 64 else bytes([0x40 | length >> 8, length & 0xFF])) + text.encode()


def file_of(aux: dict[str, str], version: int = 9, body: bytes = b"\xfe\x00") -> bytes:
    head = b"REDIS%04d" % version + b"".join(b"\xfa" + encoded(name) + encoded(value) for name, value in aux.items())
    return head + body + b"\xff" + b"checksum"


@given(fields, st.integers(1, 9999))
def test_the_header_says_what_was_written_into_it(aux: dict[str, str], version: int) -> None:
    header = parse_header(file_of(aux, version))

    assert (header.version, header.aux) == (version, aux)


@given(fields, st.integers(0, 400))
def test_a_header_that_is_cut_off_gives_whole_fields_or_is_refused(aux: dict[str, str], length: int) -> None:
    head = file_of(aux)[:length]

    if length < 9:
        with pytest.raises(Refused):
            parse_header(head)
    else:
        assert parse_header(head).aux.items() <= aux.items()


def test_a_file_tells_of_which_history_it_is_a_moment() -> None:
    history = "8cd7b2ac03f2a1a3f1aef06e6d9f0a36bd0b7f71"

    header = parse_header(file_of({"redis-ver": "7.0.15", "repl-id": history, "repl-offset": "1234"}))
    alone = parse_header(file_of({"redis-ver": "7.0.15"}))

    assert (header.replication_id, header.offset) == (history, 1234)
    assert (alone.replication_id, alone.offset) == ("", -1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an RDB"),
        (b"*3\r\n$3\r\nSET", "not an RDB"),
        (b"REDIS00a9" + bytes(20), "not an RDB"),
        (file_of({}, version=4), "no checksum"),
        (file_of({})[:-1], "cut off"),
    ],
)
def test_what_is_no_whole_rdb_is_refused_in_words(content: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        check_ends(content, content[-TAIL_BYTES:])


def test_the_checkers_complaint_is_told_without_its_decoration() -> None:
    said = "[offset 0] Checking RDB file x\n--- RDB ERROR DETECTED ---\n[offset 9] Unexpected EOF reading RDB file\n"

    assert reason_of(said) == "RDB ERROR DETECTED"
    assert reason_of("") == "it said nothing"


# --- A copy against what is on record -----------------------------------------------------------------------------

WHOLE = file_of({"redis-ver": "7.0.15", "ctime": "1700000000"}, body=bytes(range(256)))


def checked(content: bytes) -> None:
    """Raises Refused unless the content is WHOLE."""
    order = RestoreCopy("i", "g", 1, "7.0", "b", 0, "b/1.rdb", len(WHOLE), hashlib.sha256(WHOLE).hexdigest())
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        asyncio.run(verify(Path(file.name), order))


def test_what_was_stored_passes() -> None:
    checked(WHOLE)


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=60, deadline=None)
def test_a_copy_that_is_truncated_at_any_byte_is_refused(length: int) -> None:
    with pytest.raises(Refused, match="bytes"):
        checked(WHOLE[:length])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_copy_with_one_byte_that_differs_is_refused(at: int, by: int) -> None:
    with pytest.raises(Refused, match="SHA-256"):
        checked(WHOLE[:at] + bytes([WHOLE[at] ^ by]) + WHOLE[at + 1 :])
