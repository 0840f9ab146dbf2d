"""The examples of the driver's guide run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redkeep.testing.servers import RedisProcess, redis_process

pytestmark = pytest.mark.real
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "driver.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shop() -> Iterator[RedisProcess]:
    with redis_process("requirepass secret") as server:
        yield server


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, shop: RedisProcess) -> None:
    text = re.sub(r"127\.0\.0\.1:1700\d", str(shop.address), EXAMPLES[number]).replace("range(100)", "range(3)")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, "SHOP": "secret"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
