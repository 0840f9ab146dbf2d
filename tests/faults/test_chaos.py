"""Random faults on a group under load (FAULTS 46, in short): `./run chaos` plays as many rounds as one likes."""

from __future__ import annotations

import random

import pytest

from redkeep.model.instance import Durability
from redkeep.testing.chaos import FAULTS, choose, promised_away, rounds
from redkeep.testing.history import Did, Entry, Verb

pytestmark = [pytest.mark.real, pytest.mark.faults]


@pytest.mark.parametrize(
    ("durability", "count"), [(Durability.SYNC, 4), (Durability.ASYNC, 2), (Durability.BOUNDED, 2)]
)
async def test_46_after_every_round_nothing_promised_is_lost_and_one_primary_is_left(
    durability: Durability, count: int
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    told: list[str] = []

    outcomes = await rounds(count, seed, durability, told.append)

    assert not outcomes[-1].wrong, "\n".join([f"seed {seed}", *told])
    assert len(outcomes) == count
    assert "as promised" in told[-1]


def test_a_seed_brings_the_same_faults_again_and_all_of_them_come() -> None:
    first, again = random.Random(7), random.Random(7)

    chosen = [choose(first) for _ in range(200)]

    assert chosen == [choose(again) for _ in range(200)]
    assert {fault for some in chosen for fault in some} == set(FAULTS)
    assert {len(set(some)) for some in chosen} == {1, 2}


def test_a_loss_is_forgiven_only_near_a_fault() -> None:
    lost = Entry("c", "k", Verb.APPEND, 1, 9.0, 10.0, Did.OK)

    assert promised_away(lost, [12.0], bound=3)
    assert not promised_away(lost, [14.0], bound=3)
