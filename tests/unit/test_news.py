"""Messages between managers of neighbouring releases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.news import NEWEST, SiteNews, common_version, decode_freeze, decode_news, encode_freeze, encode_news

NEWS = SiteNews("managers@redis", 7, "dr1", "an id", "failed-over")


def test_each_form_has_what_it_was_released_with_and_never_less() -> None:
    """A released form is never changed: these are what N-1 and N write."""
    assert encode_news(NEWS, "1.0") == {
        "object": "SiteNews",
        "version": "1.0",
        "data": {"cluster": "managers@redis", "epoch": 7, "active_backend_id": "dr1"},
    }
    assert encode_news(NEWS, "1.1") == {
        "object": "SiteNews",
        "version": "1.1",
        "data": {
            "cluster": "managers@redis",
            "epoch": 7,
            "active_backend_id": "dr1",
            "failover": "an id",
            "replication_status": "failed-over",
        },
    }


@pytest.mark.parametrize("written", ["1.0", "1.1"])
@pytest.mark.parametrize("reads", ["1.0", "1.1"])
def test_every_release_reads_what_its_neighbour_writes(written: str, reads: str) -> None:
    read = decode_news(encode_news(NEWS, written), reads)

    assert read is not None
    assert (read.cluster, read.epoch, read.active_backend_id) == ("managers@redis", 7, "dr1")
    assert (read.failover == "an id") == (written == reads == "1.1")


def test_a_newer_minor_form_is_read_as_far_as_it_is_known() -> None:
    later = {**encode_news(NEWS), "version": "1.2"}
    later["data"] = {**later["data"], "colour": "blue"}

    assert decode_news(later) == NEWS


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"object": "Other", "version": "1.0", "data": {}},
        {"object": "SiteNews", "version": "2.0", "data": {}},
        {"object": "SiteNews", "version": "new", "data": {}},
        {"object": "SiteNews", "version": None, "data": {}},
        {"object": "SiteNews", "version": "1.0", "data": []},
        {"object": "SiteNews", "version": "1.0", "data": {"cluster": "c"}},
    ],
)
def test_what_cannot_be_read_is_a_mere_hint(body: dict[str, Any]) -> None:
    assert decode_news(body) is None


@given(st.lists(st.sampled_from(["1.0", "1.1", "1.2", "1.10"]), max_size=5))
def test_what_is_written_is_read_by_the_oldest(spoken: list[str]) -> None:
    version = common_version(spoken)

    assert version == ("1.0" if "1.0" in spoken else NEWEST)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_freeze_survives_the_way(frozen: bool) -> None:
    assert decode_freeze(encode_freeze("managers@redis", frozen=frozen)) is frozen
