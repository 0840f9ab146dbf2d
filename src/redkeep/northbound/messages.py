"""A message as the specification has it, how it is written down, and how bytes are named in JSON."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from json.encoder import encode_basestring as _quote
from typing import Any

VERSION = 1
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)
_decode = json.JSONDecoder().raw_decode
_HEAD = b'{"v":1,"id":"'
_AFTER = b',"after":"'
_BEFORE_DATA = b'"pattern":null,"data":'
"""Cannot occur within the fields before it: there the quotes would be escaped. Reading on from here is much faster than
reading the whole."""


class Message:
    """What a handler gets. `data` is read from its JSON when first asked for: many are only counted or skipped."""

    __slots__ = ("_data", "_text", "after", "channel", "id")

    type = "message"
    pattern: None = None
    """Patterns are not used here; the field is the specification's."""

    def __init__(self, channel: str, id_: str, text: bytes, after: str | None = None) -> None:
        self.channel = channel
        self.id = id_
        """Its place in the channel's log: what to go on after."""
        self.after = after
        """The id of the message before it, as far as it is said: who has not seen that one has missed something."""
        self._text: bytes | None = text

    @property
    def data(self) -> Any:
        """What was published. Raises ValueError when that was not written by a publisher of this version."""
        if self._text is not None:
            begin = self._text.find(_BEFORE_DATA)
            if begin < 0:
                raise ValueError(f"{self.channel}: not a message: {self._text[:80]!r}")
            self._data = _decode(self._text[begin + len(_BEFORE_DATA) :].decode())[0]
            self._text = None
        return self._data

    def __repr__(self) -> str:
        return f"Message({self.channel!r}, {self.id!r}, {self.data!r})"


def body(channel: str, data: Any) -> str:
    """A message without its head, which Redis writes: the id is only known there. Raises TypeError or ValueError."""
    return f'"type":"message","channel":{_ENCODER.encode(channel)},"pattern":null,"data":{_ENCODER.encode(data)}}}'


def change(
    channel: str, place: tuple[str, str], action: str, key: str | bytes | None, value: str | bytes | None
) -> str:
    """The body of the message about a change of a table within a topic: `body` of the same, four times as quick."""
    return f'{_change_head(channel, place, action)}{_text(key)},"value":{_text(value)}}}}}'


@lru_cache(maxsize=4096)
def _change_head(channel: str, place: tuple[str, str], action: str) -> str:
    table, topic = place
    data = {"table": table, "action": action, "topic": topic or None, "key": None}
    return body(channel, data).removesuffix("null}}")


def _text(value: str | bytes | None) -> str:
    """As `as_json` has it, written down."""
    if value is None:
        return "null"
    if type(value) is str and value.isascii():
        return _quote(value)
    return _ENCODER.encode(as_json(value))


def live(channel: str, payload: bytes) -> Message:
    """What came over the channel. Raises ValueError when it is of another version, or no message."""
    end = payload.find(b'"', len(_HEAD))
    if not payload.startswith(_HEAD) or end < 0:
        raise ValueError(f"{channel}: not a message of version {VERSION}: {payload[:80]!r}")
    id_, after = payload[len(_HEAD) : end].decode(), None
    if payload.startswith(_AFTER, end + 1):
        begin = end + 1 + len(_AFTER)
        after = payload[begin : payload.find(b'"', begin)].decode()
    return Message(channel, id_, payload, after)


def logged(channel: str, id_: bytes, text: bytes) -> Message:
    """The same from the log."""
    return Message(channel, id_.decode(), b"{" + text)


def as_json(value: str | bytes) -> Any:
    """Text as itself; bytes that are no text as `{"base64": ...}`."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            value = value.encode("utf-8", "surrogateescape")
        else:
            return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def from_json(value: Any) -> bytes:
    """The inverse of `as_json`, as bytes."""
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()
