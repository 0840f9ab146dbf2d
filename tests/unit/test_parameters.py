"""Which parameters may be set, and to what: every value that passes is one that redis.conf can say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redkeep.decide import parameters
from redkeep.decide.parameters import (
    CATALOGUE,
    KEPT,
    Parameter,
    Type,
    carried_over,
    effective,
    find,
    live,
    loss,
    name_in,
    offered,
    shown_status,
    validate,
    waiting,
)
from redkeep.errors import Refused
from redkeep.model.instance import Applied, Instance, Parameters, Status
from redkeep.model.topology import Address, Role

VERSIONS = ("6.2", "7.0")
versions = st.sampled_from(VERSIONS)

INSTANCE = Instance(
    id="i",
    group_id="g",
    project_id="p",
    name="db",
    role=Role.PRIMARY,
    status=Status.ACTIVE,
    flavor_id="1",
    volume_gb=1,
    version="7.0",
    created=1.0,
    updated=1.0,
    address=Address("h", 1),
)


def values_of(parameter: Parameter) -> st.SearchStrategy[object]:
    """What the catalogue says that it may be, in all the forms in which people say it."""
    match parameter.type:
        case Type.BOOLEAN:
            return st.sampled_from([True, False, "yes", "no"])
        case Type.ENUM:
            return st.sampled_from(parameter.options)
        case Type.STRING if parameter.name == "save":
            pairs = st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), max_size=8)
            return pairs.map(lambda found: " ".join(f"{seconds} {changes}" for seconds, changes in found))
        case Type.STRING:
            return st.text(st.sampled_from(parameter.options), max_size=8)
        case _:
            numbers = st.integers(parameter.low, parameter.high)
            return numbers | numbers.map(str)


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    version = draw(versions)
    names = draw(st.sets(st.sampled_from(sorted(offered(version))), max_size=6))
    return version, {name: draw(values_of(offered(version)[name])) for name in sorted(names)}


def tried(values: dict[str, object], version: str) -> tuple[Parameters, str]:
    """What they become, or why they are refused."""
    try:
        return validate(values, version), ""
    except Refused as error:
        return (), str(error)


@given(orders())
def test_what_passes_is_one_line_of_redis_conf_each_and_passes_again(order: tuple[str, dict[str, object]]) -> None:
    version, values = order

    found, refusal = tried(values, version)

    if refusal:  # alone each is good, together they are not
        assert "must not be" in refusal or "needs" in refusal
        return
    assert {name for name, _ in found} == set(values)
    assert all("\n" not in value and '"' not in value and "\\" not in value for _, value in found)
    assert validate(dict(found), version) == found


@given(versions, st.text(), st.none() | st.text() | st.integers() | st.booleans())
def test_any_name_with_any_value_passes_or_is_refused_by_name(version: str, name: str, value: object) -> None:
    _, refusal = tried({name: value}, version)

    assert not refusal or name[:64] in refusal


@given(versions, st.sampled_from(CATALOGUE), st.none() | st.text() | st.integers() | st.booleans() | st.floats())
def test_any_value_of_an_offered_parameter_passes_or_is_refused_by_name(
    version: str, parameter: Parameter, value: object
) -> None:
    name = name_in(parameter, version)

    found, refusal = tried({name: value}, version)

    assert name in refusal or [each for each, _ in found] == [name]
    assert "\n" not in "".join(text for _, text in found)


@given(orders())
def test_a_configuration_survives_the_upgrade_to_7_0(order: tuple[str, dict[str, object]]) -> None:
    version, values = order
    found, _ = tried(values, version)

    newer = carried_over(found, "7.0")
    assert sorted(value for _, value in newer) == sorted(value for _, value in found)
    assert {name for name, _ in newer} <= set(offered("7.0"))
    assert carried_over(newer, "7.0") == newer


@pytest.mark.parametrize("version", VERSIONS)
def test_every_default_is_a_value_that_may_be_set(version: str) -> None:
    assert dict(validate(effective((), version), version)) == effective((), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_redkeep_keeps_is_not_offered_and_the_refusal_says_why(version: str) -> None:
    assert not set(KEPT) & set(offered(version))
    for name, reason in KEPT.items():
        with pytest.raises(Refused, match="not a tenant's to set") as caught:
            find(name, version)
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"appendonly": "no", "save": ""}, "append-only file"),
        ({"min-replicas-to-write": 1}, "redkeep-durability"),
        ({"redkeep-durability": "perhaps"}, "async, bounded, sync"),
        ({"maxmemory": "1gb"}, "flavor"),
        ({"hz": 0}, "hz must be from 1 to 500"),
        ({"hz": "many"}, "hz must be a whole number"),
        ({"hz": True}, "hz must be a whole number"),
        ({"activerehashing": 1}, "activerehashing must be yes or no"),
        ({"maxmemory-policy": "lru"}, "must be one of noeviction"),
        ({"proto-max-bulk-len": "64qb"}, "number of bytes"),
        ({"proto-max-bulk-len": "1b2"}, "number of bytes"),
        ({"save": "3600"}, "pairs"),
        ({"save": "0 1"}, "pairs"),
        ({"save": "1 1\nappendonly no"}, "must be text of these characters"),
        ({"notify-keyspace-events": "KEA\n"}, "must be text of these characters"),
        ({"active-defrag-cycle-min": 50}, "active-defrag-cycle-min must not be greater than active-defrag-cycle-max"),
        ({"io-threads-do-reads": "yes"}, "io-threads-do-reads needs io-threads"),
        ({"hash-max-ziplist-entries": 1}, "There it is called hash-max-listpack-entries"),
        ({"databases": 8}, "databases must be from 16"),
        ({"colour": "red", "hz": 0}, "colour is not offered for Redis 7.0. See the parameters"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(Refused) as caught:
        validate(values, "7.0")

    assert words in str(caught.value)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(Refused, match=r"colour.*hz must be"):
        validate({"colour": "red", "hz": 0}, "7.0")


def test_a_parameter_of_a_later_version_is_refused_with_that_version() -> None:
    with pytest.raises(Refused, match=r"It came with Redis 7\.0"):
        find("latency-tracking", "6.2")


@pytest.mark.parametrize(("said", "stands"), [("64mb", 64 * 2**20), ("1g", 10**9), (2**20, 2**20), ("1048576", 2**20)])
def test_memory_has_the_units_of_redis_conf(said: object, stands: int) -> None:
    assert validate({"auto-aof-rewrite-min-size": said}, "7.0") == (("auto-aof-rewrite-min-size", str(stands)),)


@given(versions, st.integers(16, 10000), st.integers(16, 10000))
def test_the_number_of_databases_only_rises(version: str, before: int, after: int) -> None:
    old, new = ((("databases", str(number)),) for number in (before, after))

    assert (loss(old, new, version) is None) == (after >= before)
    assert (loss(old, (), version) is None) == (before == 16)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_needs_a_restart_is_not_told_to_a_running_server(version: str) -> None:
    told = live((("io-threads", "2"), ("hz", "50")), version)

    assert told["hz"] == "50"
    assert not {"io-threads", "databases"} & set(told)


def test_a_restart_is_required_until_the_server_has_come_up_with_its_parameters() -> None:
    configured = replace(INSTANCE, parameters=(("hz", "50"), ("io-threads", "2")))

    assert waiting(configured) == ("io-threads",)
    assert shown_status(configured) is Status.RESTART_REQUIRED
    assert shown_status(replace(configured, status=Status.REBOOT)) is Status.REBOOT
    assert shown_status(replace(configured, proven=Applied("c", configured.parameters))) is Status.ACTIVE
    assert shown_status(replace(INSTANCE, parameters=(("hz", "50"),))) is Status.ACTIVE
    assert shown_status(replace(INSTANCE, parameters=(("io-threads", "1"),))) is Status.ACTIVE


def test_names_are_unique_in_every_version() -> None:
    for version in VERSIONS:
        names = [parameters.name_in(one, version) for one in CATALOGUE]
        assert len(names) == len(set(names))
