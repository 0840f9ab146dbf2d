"""Drivers: how they are found, what is told of their class, and the kit that any of them can be held to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from redkeep.backends import loading
from redkeep.backends.base import BaseDriver
from redkeep.backends.loading import abilities, load_driver
from redkeep.backends.plain import PlainDriver
from redkeep.errors import Refused
from redkeep.model.site import FailoverResult, Volume
from redkeep.ports import BackendContext, BackendDriver
from redkeep.testing.driver_kit import BackendDriverContract
from redkeep.testing.fake_backend import FakeStorage


class TestTheFakeDriver(BackendDriverContract):
    """The one that other tests rely on keeps to the contract."""

    targets = ("dr1", "dr2")

    async def fresh(self) -> None:
        self.storage = FakeStorage()

    def make(self, context: BackendContext) -> BackendDriver:
        return self.storage.driver_class()(context)

    async def observe(self) -> Any:
        return self.storage.active


class Careless(BaseDriver):
    """Goes wherever it is told, and forgets a half."""

    async def failover(self, volumes: Sequence[Volume], secondary_id: str, *, forced: bool) -> FailoverResult:
        return FailoverResult(secondary_id)


class KitOfTheCareless(BackendDriverContract):
    def make(self, context: BackendContext) -> BackendDriver:
        return Careless(context)


async def test_the_kit_finds_what_is_wrong_with_a_careless_driver() -> None:
    kit = KitOfTheCareless()

    with pytest.raises(AssertionError, match="failover and failover_completed"):
        await kit.test_it_brings_the_two_halves()
    with pytest.raises(AssertionError, match="no such target"):
        await kit.test_a_target_that_is_not_configured_changes_nothing()
    with pytest.raises(Refused):
        await kit.test_it_moves_to_every_target_and_back()


def test_a_driver_is_found_by_its_entry_point() -> None:
    assert load_driver("plain") is PlainDriver


def test_one_that_is_not_there_is_refused_and_those_that_are_are_named() -> None:
    with pytest.raises(Refused, match=r"no such driver; there are .*plain"):
        load_driver("typo")


def test_a_vendors_driver_plugs_in_by_an_installed_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_driver.py").write_text("class Acme:\n    SUPPORTS_ACTIVE_ACTIVE = True\n")
    facts = tmp_path / "acme-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[redkeep.backends]\nacme = acme_driver:Acme\nbad = acme_driver:Nothing\n")
    monkeypatch.syspath_prepend(tmp_path)

    found = load_driver("acme")

    assert found.__name__ == "Acme"
    with pytest.raises(Refused, match="cannot be loaded"):
        load_driver("bad")


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (PlainDriver, (True, False, False)),
        (Careless, (False, False, False)),
        (FakeStorage().driver_class(), (True, True, False)),
        (FakeStorage().driver_class(active_active=False), (False, True, False)),
    ],
)
def test_what_a_class_can_do_is_told_from_what_it_brings(driver: Any, expected: tuple[bool, bool, bool]) -> None:
    able = abilities(driver)

    assert (able.active_active, able.halves, able.whole) == expected
    assert loading.GROUP == "redkeep.backends"
