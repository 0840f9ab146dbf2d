"""`redkeep status`: all servers on one screen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from io import StringIO
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from redkeep.bootstrap import way_in
from redkeep.config import Config
from redkeep.errors import Refused, Unavailable


@dataclass(frozen=True, slots=True)
class Report:
    """What the API says of all servers."""

    members: list[dict[str, Any]]
    operations: list[str]
    backends: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return all(member["health"] == "ok" for member in self.members)


async def fetch(config: Config) -> Report:
    """Ask the API, as the administrator of `clouds.yaml`. Raises Unavailable, Refused."""
    api, auth = way_in(config)
    url = f"{api}/v1.0/{config.api.admin_user}/status"
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False, auth=auth) as client:
            reply = await client.get(url, params={"everything": True})
    except httpx.HTTPError as error:
        raise Unavailable(f"nothing answers on {api}: is `redkeep up` running? ({error!r})") from error
    if not reply.is_success:
        raise Refused(f"{api} answered {reply.status_code}: {reply.text[:200]}")
    return Report(**reply.json())


def render(report: Report, *, as_json: bool = False) -> str:
    """A table for people, or JSON."""
    if as_json:
        return json.dumps(asdict(report), indent=2)
    backends = "\n".join(report.backends)
    if not report.members:
        return f"There is no instance yet: openstack database instance create --help\n{backends}".rstrip()
    table = Table(box=None, pad_edge=False, header_style="bold")
    sites = any(one.get("site") for one in report.members)
    clusters = any(one.get("cluster") for one in report.members)
    for name in (
        "NAME",
        "ROLE",
        *(("SLOTS",) if clusters else ()),
        "ADDRESS",
        "REDIS",
        "STATUS",
        "LAG",
        "KEYS",
        "MEMORY",
        "HOST",
    ):
        table.add_column(name, justify="right" if name in ("SLOTS", "LAG", "KEYS", "MEMORY") else "left")
    for name in (*(("SITE",) if sites else ()), "HEALTH"):
        table.add_column(name)
    for one in report.members:
        indent = "" if one["role"] == "primary" else "  "
        table.add_row(
            f"{indent}{one['name']}",
            one["role"],
            *((str(one.get("slots", "-")),) if clusters else ()),
            one.get("address") or "-",
            one["version"],
            one["status"],
            _bytes(one.get("lag_bytes")),
            str(one["keys"]) if one.get("keys") is not None else "-",
            f"{_bytes(one.get('memory_used'))}/{_bytes(one.get('memory_max'))}",
            one.get("host") or "-",
            *((one.get("site") or "-",) if sites else ()),
            one["health"],
        )
    screen = Console(file=StringIO(), width=160)
    screen.print(table)
    for text in report.backends:
        screen.print(text, soft_wrap=True)
    for text in report.operations:
        screen.print(f"at work: {text}")
    assert isinstance(screen.file, StringIO)  # noqa: S101 (for the type checker)
    return "\n".join(line.rstrip() for line in screen.file.getvalue().splitlines())


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
