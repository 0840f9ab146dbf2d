"""Settings, read once: a file, the environment (`OS_<GROUP>__<OPTION>`), defaults; handed on as frozen values.

The file is `redkeep.conf` in the state directory, or what `--config-file` names; nothing needs to stand in it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from oslo_config import cfg, types

from redkeep.agent.guest import METHODS as GUEST_METHODS
from redkeep.agent.settings import AgentSettings
from redkeep.api.settings import FLAVORS, ApiSettings
from redkeep.decide.liveness import Patience
from redkeep.decide.recovery import Limits
from redkeep.errors import Refused
from redkeep.manager.settings import ManagerSettings
from redkeep.model.instance import DEFAULT_SITE, Flavor
from redkeep.model.site import FAILBACK, Backend, ReplicationTarget
from redkeep.model.topology import Address
from redkeep.redis.conf import Tuning
from redkeep.redis.versions import find_servers
from redkeep.storage import StorageSettings
from redkeep.strategies import load_class

OPTIONS: dict[str, list[cfg.Opt]] = {
    "store": [
        cfg.StrOpt(
            "url",
            help="Where the truth is kept: sqlite:////path or postgresql+psycopg://user:password@host/database. "
            "The default is redkeep.db in the state directory.",
            secret=True,
        ),
    ],
    "northbound": [
        cfg.StrOpt(
            "url",
            help="The control Redis, redis://user:password@host:port. "
            "By default `redkeep up` starts one of its own, on `port`.",
            secret=True,
        ),
        cfg.PortOpt("port", default=8778, help="Port of 127.0.0.1 for the control Redis that `redkeep up` starts."),
    ],
    "api": [
        cfg.HostAddressOpt("listen", default="127.0.0.1", help="Address that the REST API listens on."),
        cfg.PortOpt("port", default=8779, help="Port that the REST API listens on."),
        cfg.StrOpt("public_url", help="Where clients reach the API, if that is not where their request came to."),
        cfg.StrOpt(
            "auth",
            default="basic",
            choices=[
                ("basic", "HTTP Basic or a token of the identity facade, checked against the htpasswd file"),
                ("noauth", "everybody is the administrator; refused unless `listen` is a loopback address"),
            ],
            help="How callers are known.",
        ),
        cfg.StrOpt("htpasswd", help="Users and bcrypt hashes. The default is htpasswd in the state directory."),
        cfg.IntOpt("token_lifetime", default=12 * 3600, min=60, help="Seconds for which a token is good."),
        cfg.IntOpt("max_instances", default=100, min=1, help="Instances that a project may have."),
        cfg.IntOpt("max_ram_mb", default=256 * 1024, min=1, help="Memory that a project's flavors may add up to."),
        cfg.IntOpt("max_volume_gb", default=2048, min=1, help="Disk that a project's volumes may add up to."),
        cfg.MultiStrOpt(
            "flavor",
            default=[f"{one.id}:{one.name}:{one.ram_mb}:{one.vcpus}" for one in FLAVORS],
            help="A size to order by: ID:NAME:RAM_MB[:VCPUS], RAM being what Redis may fill. Say it once for each, in "
            "the file of every API and manager. Keep those that instances have: without its flavor a server that must "
            "be started anew waits.",
        ),
        cfg.IntOpt(
            "max_replicas", default=3, min=1, max=16, help="Replicas that one order may ask for; upstream's is 3."
        ),
        cfg.StrOpt("region", default="RegionOne", help="Region named in the catalogue."),
    ],
    "backend": [
        cfg.StrOpt("name", default="redis", help="Names the backend that the managers serve, as in managers@redis."),
        cfg.StrOpt(
            "cluster",
            default="managers",
            help="The service cluster that its managers form. Empty: a manager is alone, and the only one.",
        ),
        cfg.StrOpt("driver", default="plain", help="Moves it between sites: an entry point of redkeep.backends."),
        cfg.StrOpt("site", default=DEFAULT_SITE, help="Site that it belongs to: the target `default`."),
        cfg.MultiStrOpt(
            "replication_device",
            default=[],
            help="A site that it can fail over to: backend_id:NAME[,site:LABEL][,key:value...]. Without a label the "
            "name is the site's. Say it once for each.",
        ),
        cfg.FloatOpt(
            "site_lease",
            default=10.0,
            min=1,
            help="Seconds for which a primary with a replica at another site writes on without a manager. A forced "
            "failover waits for as long. The same for all managers.",
        ),
    ],
    "manager": [
        cfg.StrOpt("name", help="Names this manager among all. The default is made of host name and process id."),
        cfg.FloatOpt("lease", default=5.0, min=1, help="Seconds after which a dead manager's work is taken over."),
        cfg.FloatOpt("word", default=1.5, min=0.8, help="Seconds for which a confirmed primary may write on its own."),
        cfg.FloatOpt("look_interval", default=1.0, min=0.1, help="Seconds between two looks at all groups."),
        cfg.FloatOpt("silence", default=1.25, min=0.5, help="Seconds after which a host that says nothing is silent."),
        cfg.FloatOpt(
            "orphan",
            default=5.0,
            min=2.0,
            help="Seconds after which a primary that serves is replaced because its agent says nothing.",
        ),
        cfg.FloatOpt(
            "host_lost",
            default=120.0,
            min=10,
            help="Seconds after which what is being made or restored on a host that says nothing is given up.",
        ),
        cfg.FloatOpt(
            "loading",
            default=600.0,
            min=10,
            help="Seconds that a primary may load its data before a replica that is fit takes its place.",
        ),
        cfg.FloatOpt(
            "roll_patience",
            default=120.0,
            min=1,
            help="Seconds that a server which was started anew in a rolling restart or upgrade may take to come back, "
            "those not counted in which it gets on.",
        ),
        cfg.FloatOpt(
            "canary_interval", default=5.0, min=0.1, help="Seconds between two looks at how far behind sites are."
        ),
        cfg.FloatOpt("report_interval", default=5.0, min=0.1, help="Seconds between two signs of life of a manager."),
        cfg.FloatOpt("service_down_time", default=60.0, min=0.5, help="Seconds without one after which it is down."),
        cfg.FloatOpt(
            "site_failover_limit", default=3600.0, min=1, help="Seconds after which a failover of a site is given up."
        ),
    ],
    "redis": [
        cfg.BoolOpt("cluster_support", default=True, help="Clusters can be created."),
        cfg.StrOpt(
            "api_strategy",
            default="redkeep.api.cluster_strategy.RedisApiStrategy",
            help="Class of what the API does with clusters.",
        ),
        cfg.StrOpt(
            "taskmanager_strategy",
            default="redkeep.operations.cluster_strategy.RedisTaskManagerStrategy",
            help="Class of what managers do with clusters.",
        ),
        cfg.StrOpt(
            "guestagent_strategy",
            default="redkeep.agent.guest.GuestAgentStrategy",
            help="Class of what an agent tells a member of a cluster.",
        ),
        cfg.BoolOpt(
            "volume_support",
            default=True,
            help="Members of clusters have volumes of the ordered size. Without, their flavor must have local storage.",
        ),
    ],
    "backup": [
        cfg.StrOpt(
            "storage",
            help="Where agents keep backups: file:///directory or s3://bucket/prefix. "
            "The default is backups in the state directory.",
        ),
        cfg.BoolOpt(
            "shared", default=False, help="The directory is one that every host has at the same path, such as NFS."
        ),
        cfg.StrOpt(
            "endpoint_url",
            help="Of an S3-compatible service. Credentials and region are found where boto3 looks for them.",
        ),
    ],
    "agent": [
        cfg.StrOpt("host_id", help="Name of this machine among all hosts. The default is its host name."),
        cfg.StrOpt("address", default="127.0.0.1", help="Address that the Redis servers of this host listen on."),
        cfg.StrOpt("zone", default="", help="Availability zone of this machine; shards are spread over zones."),
        cfg.StrOpt(
            "site", default=DEFAULT_SITE, help="Site of this machine; a backend fails over from one to another."
        ),
        cfg.Opt("ports", type=types.Range(1024, 55535), default="7000-7999", help="Ports for Redis servers."),
        cfg.MultiStrOpt("redis_server", default=[], help="A redis-server program to offer besides those on the PATH."),
        cfg.FloatOpt("heartbeat", default=0.5, min=0.05, help="Seconds between two reports to the managers."),
        cfg.FloatOpt("stopped_limit", default=0.2, min=0.05, help="Seconds that a stopped process is waited for."),
        cfg.FloatOpt("silent_limit", default=5.0, min=0.2, help="Seconds that a silent server is waited for."),
        cfg.BoolOpt("diskless_sync", default=True, help="Primaries send their data to replicas without a file."),
        cfg.ListOpt(
            "file_sync_versions", default=[], help="Redis versions (6.2, 7.0) whose primaries send it through a file."
        ),
        cfg.IntOpt("diskless_sync_delay", default=0, min=0, help="Seconds that a primary waits for more replicas."),
    ],
}


@dataclass(frozen=True, slots=True)
class Northbound:
    """How to reach the control Redis."""

    address: Address
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one process."""

    state_dir: Path
    store_url: str
    northbound: Northbound | None
    """None: the one of `redkeep up`, whose password is in the state directory."""
    northbound_port: int
    listen: Address
    api: ApiSettings
    manager: ManagerSettings
    agent: AgentSettings
    backup: StorageSettings
    backend: Backend

    @property
    def key_file(self) -> Path:
        return self.state_dir / "secret.key"

    @property
    def url(self) -> str:
        """Where clients reach the API."""
        return self.api.public_url or f"http://{self.listen}"


def default_state_dir() -> Path:
    """Per the XDG base directory specification."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "redkeep"


def load(state_dir: Path, config_file: Path | None = None, overrides: Sequence[tuple[str, str, Any]] = ()) -> Config:
    """Read all settings. `overrides`: (group, option, value) from the command line; None is no override.

    Raises Refused when the file cannot be read or says what it may not.
    """
    state_dir = state_dir.resolve()
    conf = cfg.ConfigOpts()
    for group, options in OPTIONS.items():
        conf.register_opts(options, group=group)
    file = config_file or state_dir / "redkeep.conf"
    try:
        conf([], project="redkeep", default_config_files=[str(file)] if config_file or file.exists() else [])
        for group, option, value in overrides:
            if value is not None:
                conf.set_override(option, value, group=group)
        return _freeze(state_dir, conf)
    except (cfg.Error, ValueError) as error:
        raise Refused(f"{file}: {error}") from error


def _freeze(state_dir: Path, conf: cfg.ConfigOpts) -> Config:
    api = _api(state_dir, conf.api, conf.redis)
    if api.auth == "noauth" and not _is_loopback(conf.api.listen):
        raise Refused(f"auth = noauth would let everybody at {conf.api.listen} in; listen on 127.0.0.1, or use basic")
    return Config(
        state_dir=state_dir,
        store_url=conf.store.url or f"sqlite:///{state_dir / 'redkeep.db'}",
        northbound=_northbound(conf.northbound.url) if conf.northbound.url else None,
        northbound_port=conf.northbound.port,
        listen=Address(conf.api.listen, conf.api.port),
        api=replace(
            api,
            backend=conf.backend.name,
            sites=_backend(conf.backend),
            service_down_seconds=conf.manager.service_down_time,
            site_failover_limit_seconds=conf.manager.site_failover_limit,
        ),
        manager=replace(
            _manager(conf.manager, conf.backend, api), taskmanager_strategy=conf.redis.taskmanager_strategy
        ),
        agent=replace(
            _agent(state_dir, conf.agent, conf.manager.word),
            guestagent_strategy=_class(conf.redis.guestagent_strategy, GUEST_METHODS),
        ),
        backup=_backup(state_dir, conf.backup, conf.agent.host_id or socket.gethostname()),
        backend=_backend(conf.backend),
    )


def _class(name: str, needs: Sequence[str]) -> Any:
    try:
        return load_class(name, needs=needs)
    except Refused as error:
        raise ValueError(str(error)) from error


def _api(state_dir: Path, conf: Any, redis: Any) -> ApiSettings:
    return ApiSettings(
        public_url=conf.public_url.rstrip("/") if conf.public_url else None,
        auth=conf.auth,
        htpasswd=Path(conf.htpasswd) if conf.htpasswd else state_dir / "htpasswd",
        token_lifetime_seconds=conf.token_lifetime,
        max_instances=conf.max_instances,
        max_ram_mb=conf.max_ram_mb,
        max_volume_gb=conf.max_volume_gb,
        flavors=_flavors(conf.flavor),
        max_replicas=conf.max_replicas,
        region=conf.region,
        cluster_support=redis.cluster_support,
        cluster_strategy=redis.api_strategy,
        volume_support=redis.volume_support,
    )


def _flavors(texts: Sequence[str]) -> tuple[Flavor, ...]:
    flavors = tuple(_flavor(text) for text in texts)
    if len({one.id for one in flavors}) < len(flavors) or not flavors:
        raise ValueError("api.flavor: there must be one, and every ID comes once")
    return flavors


def _flavor(text: str) -> Flavor:
    id_, _, rest = text.partition(":")
    name, _, numbers = rest.partition(":")
    sizes = numbers.split(":")
    if id_ and name and len(sizes) <= 2 and all(size.isdecimal() and int(size) for size in sizes):
        return Flavor(id_, name, *map(int, sizes))
    raise ValueError(f"api.flavor: {text!r} does not look like ID:NAME:RAM_MB[:VCPUS]")


def _backend(conf: Any) -> Backend:
    if "@" in conf.name or not conf.name or "@" in conf.cluster:
        raise ValueError("backend.name and backend.cluster are words without @; the name may not be empty")
    targets = tuple(_target(text) for text in conf.replication_device)
    names = [FAILBACK, *(one.backend_id for one in targets)]
    if len(set(names)) < len(names):
        raise ValueError(f"backend.replication_device: every backend_id comes once, and {FAILBACK!r} is reserved")
    return Backend(conf.name, conf.driver, conf.site, targets, conf.site_lease)


def _target(text: str) -> ReplicationTarget:
    pairs = [pair.partition(":") for pair in text.split(",") if pair.strip()]
    options = {name.strip(): value.strip() for name, _, value in pairs}
    backend_id = options.pop("backend_id", "")
    if not backend_id or not all(colon for _, colon, _ in pairs):
        raise ValueError("backend.replication_device looks like backend_id:NAME[,site:LABEL][,key:value...]")
    return ReplicationTarget(backend_id, options.pop("site", backend_id), options)


def _manager(conf: Any, backend: Any, api: ApiSettings) -> ManagerSettings:
    return ManagerSettings(
        name=conf.name or f"{socket.gethostname()}-{os.getpid()}",
        flavors={flavor.id: flavor for flavor in api.flavors},
        lease_seconds=conf.lease,
        word_seconds=conf.word,
        look_interval=conf.look_interval,
        canary_interval=conf.canary_interval,
        roll_patience=conf.roll_patience,
        host_lost=conf.host_lost,
        limits=Limits(
            doubt=min(0.75, 0.6 * conf.silence), silence=conf.silence, orphan=conf.orphan, loading=conf.loading
        ),
        service=conf.name or socket.gethostname(),
        cluster=backend.cluster,
        backend=_backend(backend),
        report_interval=conf.report_interval,
    )


def _agent(state_dir: Path, conf: Any, word: float) -> AgentSettings:
    host_id = conf.host_id or socket.gethostname()
    if len(conf.ports) < 1 or conf.ports[0] > conf.ports[-1]:
        raise ValueError("agent.ports is a range from the lower to the higher port: 7000-7999")
    return AgentSettings(
        host_id=host_id,
        address=conf.address,
        zone=conf.zone,
        site=conf.site,
        directory=state_dir / "servers" / host_id,
        programs=find_servers(Path(program) for program in conf.redis_server),
        port_low=conf.ports[0],
        port_high=conf.ports[-1],
        word_seconds=word,
        heartbeat_interval=conf.heartbeat,
        patience=Patience(stopped=conf.stopped_limit, silent=conf.silent_limit),
        tuning=Tuning(
            diskless_sync=conf.diskless_sync,
            diskless_sync_delay=conf.diskless_sync_delay,
            file_sync_versions=frozenset(conf.file_sync_versions),
        ),
    )


def _backup(state_dir: Path, conf: Any, host_id: str) -> StorageSettings:
    return StorageSettings(
        url=conf.storage or f"file://{quote(str(state_dir / 'backups'))}",
        host_id=host_id,
        endpoint_url=conf.endpoint_url,
        shared=conf.shared,
    )


def _northbound(url: str) -> Northbound:
    parts = urlsplit(url)
    if parts.scheme != "redis" or not parts.hostname:
        raise ValueError("northbound.url must look like redis://user:password@host:port")
    secret = [unquote(part) if part else None for part in (parts.username, parts.password)]
    try:
        port = parts.port or 6379
    except ValueError as error:
        raise ValueError(f"northbound.url has no good port: {error}") from None
    return Northbound(Address(parts.hostname, port), secret[0], secret[1])


def _is_loopback(host: str) -> bool:
    """A name other than `localhost` may resolve to anything: 127.example.com is not this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
