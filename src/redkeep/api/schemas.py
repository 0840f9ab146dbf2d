"""Requests and answers as they look on the wire. What validates here is also what `/openapi.json` describes.

Nothing is ever sent as null (the clients crash on it): the table of routes has what is None left out of answers.
Requests keep Trove's camel case where it has some (`flavorRef`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from redkeep.model.instance import Durability

Absent = SkipJsonSchema[None]
"""None in here, left out on the wire."""

MOST_REPLICAS = 16
"""In one order, whatever is configured."""
MOST_USERS = 100
LARGEST_SIZE = 2**31 - 1

# --- Words --------------------------------------------------------------------------------------------------------

_PRINTABLE = r"[^\x00-\x1f\x7f]"


def _whole(value: object) -> int:
    """A volume's size: an integer, or its digits (the cluster commands send those). Never true or 2.5."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
        raise ValueError(f"must be a whole number of gigabytes from 1 to {LARGEST_SIZE}")
    return value


def _flavor_id(value: object) -> str:
    """A flavor's id as integer or text, or a reference whose last segment it is."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be the id of a flavor, or a link to it")
    return str(value).rstrip("/").rpartition("/")[2]


def _nobody(value: object) -> None:
    """What a replica is to follow when it is detached. Old clients say it with an empty string."""
    if value not in (None, ""):
        raise ValueError("must be null: a replica can be detached from its source, not handed to another one")


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=rf"^{_PRINTABLE}*[0-9A-Za-z]{_PRINTABLE}*$"),
    Field(description="Up to 255 characters with at least one letter or digit among them"),
]
Gigabytes = Annotated[
    int,
    BeforeValidator(_whole),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": LARGEST_SIZE},
                {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
            ]
        }
    ),
]
FlavorRef = Annotated[
    str, BeforeValidator(_flavor_id), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})
]
Nobody = Annotated[None, BeforeValidator(_nobody), WithJsonSchema({"enum": [None, ""]})]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F-]{36}$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Password = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=rf"^{_PRINTABLE}+$")]
Nothing = Annotated[dict[str, Any], Field(description="An empty object", max_length=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- Requests -----------------------------------------------------------------------------------------------------


class VolumeOrder(BaseModel):
    size: Gigabytes


class DatastoreOrder(BaseModel):
    type: str | None = Field(None, description="Name or id; redis, when it is left out")
    version: str | None = Field(None, description="Name or id; the default version, when it is left out")
    version_number: str | None = Field(None, description="Taken where there is no `version`")


class Nic(BaseModel):
    """Accepted and not used: servers listen on the address of their host."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    net_id: str | None = Field(None, alias="net-id")
    network_id: str | None = None
    subnet_id: str | None = None
    ip_address: str | None = None

    @model_validator(mode="after")
    def _names_a_network(self) -> Self:
        if not (self.net_id or self.network_id or self.subnet_id):
            raise ValueError("names neither a network nor a subnet")
        return self


class AccessOrder(BaseModel):
    """Accepted and not used: who reaches the hosts decides who reaches the servers."""

    is_public: bool = False
    allowed_cidrs: list[str] = []


class RestorePoint(_Strict):
    backupRef: str = Field(min_length=1, max_length=255, description="The id of a backup")  # noqa: N815


class ReplicationOrder(_Strict):
    """Redkeep's own: at which other sites of the backend a replica stands by, for the failover of the whole site."""

    sites: Literal["all"] | list[Annotated[str, StringConstraints(min_length=1, max_length=255)]] = Field(
        description="`all`, or the `backend_id` of each; `default` is the site that the backend belongs to"
    )


class InstanceOrder(BaseModel):
    """Unknown keys are ignored, as upstream; those that would change what is built are refused (501)."""

    name: Name
    flavorRef: FlavorRef | None = None  # noqa: N815 (the wire's name)
    volume: VolumeOrder | None = None
    datastore: DatastoreOrder | None = None
    replica_of: Uuid | None = Field(None, description="Create replicas of this instance, which decide all but the name")
    slave_of: Uuid | None = Field(
        None, description="The former name of `replica_of`", json_schema_extra={"deprecated": True}
    )
    replica_count: int = Field(1, ge=1, le=MOST_REPLICAS, strict=True)
    durability: Durability = Field(
        Durability.ASYNC,
        description="Redkeep's own: what the group promises of acknowledged writes when its primary is lost",
    )
    replication: ReplicationOrder | None = None
    nics: list[Nic] = Field(default=[], max_length=1)
    access: AccessOrder | None = None
    configuration: Uuid | None = Field(None, description="A configuration group; replicas have that of their source")
    restorePoint: RestorePoint | None = Field(None, description="Fill it with a backup")  # noqa: N815
    modules: Any = None
    databases: Any = None
    users: Any = None

    @property
    def source_id(self) -> str | None:
        return (self.replica_of or self.slave_of or "").lower() or None

    @model_validator(mode="after")
    def _several_only_as_replicas(self) -> Self:
        if self.replica_count > 1 and not self.source_id:
            raise ValueError("replica_count needs replica_of")
        if self.restorePoint and self.source_id:
            raise ValueError("restorePoint and replica_of exclude each other: a replica has the data of its source")
        if self.replication and self.source_id:
            raise ValueError("replication belongs to the source, not to a replica")
        return self


class CreateInstance(BaseModel):
    instance: InstanceOrder


class InstanceChange(_Strict):
    """One of them at a time, besides the name."""

    name: Name | None = None
    replica_of: Nobody = Field(None, description="null: detach it from its source")
    slave_of: Literal[""] | None = Field(
        None, description="The former name of `replica_of`", json_schema_extra={"deprecated": True}
    )
    configuration: Uuid | Literal[""] | None = Field(
        None, description="A configuration group for it and its replicas; null: none"
    )
    datastore_version: str | None = Field(
        None, description="Name or id: the source and its replicas are restarted one after the other with this version"
    )
    replication: ReplicationOrder | None = Field(
        None, description="At these sites, and at no others, a replica of it stands by; null: at none"
    )
    access: Any = None

    @property
    def asked(self) -> frozenset[str]:
        """What is to change besides the name."""
        return frozenset(self.model_fields_set - {"name"})

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Self:
        if len(self.asked) > 1:
            raise ValueError(f"changes more than one thing at a time: {', '.join(sorted(self.asked))}")
        if "name" in self.model_fields_set and self.name is None:
            raise ValueError("the name cannot be taken away")
        if "datastore_version" in self.model_fields_set and not self.datastore_version:
            raise ValueError("datastore_version must name a version")
        return self


class UpdateInstance(BaseModel):
    instance: InstanceChange


class Resize(_Strict):
    flavorRef: FlavorRef | None = None  # noqa: N815
    volume: VolumeOrder | None = None

    @model_validator(mode="after")
    def _to_something(self) -> Self:
        if self.flavorRef is None and self.volume is None:
            raise ValueError("needs a flavorRef or a volume")
        return self


class Restart(_Strict):
    """`rolling` is Redkeep's own: a source and its replicas one after the other, the replicas first."""

    rolling: bool = Field(False, strict=True)


class Eject(_Strict):
    """`force` is Redkeep's own: accept that the new source lacks what it is known to lack."""

    force: bool = Field(False, strict=True)


class Action(BaseModel):
    """Exactly one of them. Pausing and resuming automatic failover of the whole group is Redkeep's own."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1})

    restart: Restart = Restart(rolling=False)
    resize: Resize = Resize.model_construct()
    promote_to_replica_source: Nothing = {}
    eject_replica_source: Eject = Eject(force=False)
    pause_failover: Nothing = {}
    resume_failover: Nothing = {}
    reset_status: Nothing = {}

    @property
    def asked(self) -> str:
        return next(iter(self.model_fields_set))

    @model_validator(mode="before")
    @classmethod
    def _one_that_is_known(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("must hold exactly one action")
        if isinstance(value, dict) and not value.keys() <= cls.model_fields.keys():
            raise ValueError(f"is none of the actions {', '.join(cls.model_fields)}")
        return value


ParameterValue = bool | int | str
Values = Annotated[dict[str, ParameterValue], Field(description="Parameters by name", max_length=200)]


class ConfigurationOrder(BaseModel):
    name: Name
    values: Values
    description: Annotated[str, StringConstraints(max_length=1024)] | None = None
    datastore: DatastoreOrder | None = None


class CreateConfiguration(BaseModel):
    configuration: ConfigurationOrder


class ConfigurationChange(_Strict):
    name: Name | None = None
    values: Values | None = None
    description: Annotated[str, StringConstraints(max_length=1024)] | None = None


class UpdateConfiguration(BaseModel):
    configuration: ConfigurationChange


class NewUser(BaseModel):
    """`databases` and `host` are accepted and not used: a user of Redis has the whole server, from anywhere."""

    name: UserName
    password: Password | None = Field(None, description="Made up and returned when it is left out")


class CreateUsers(BaseModel):
    users: list[NewUser] = Field(min_length=1, max_length=MOST_USERS)


class UserPassword(BaseModel):
    name: UserName
    password: Password


class ChangePasswords(BaseModel):
    users: list[UserPassword] = Field(min_length=1, max_length=MOST_USERS)


class BackupOrder(BaseModel):
    """What clients send for Trove's other kinds of backups is refused (501): it would change what is made."""

    name: Name
    instance: Uuid | None = None
    description: str | None = Field(None, max_length=1024)
    incremental: int | bool = Field(0, description="Redis has no incremental copies: 0")
    parent_id: Any = None
    storage_driver: Any = None
    swift_container: Any = None
    restore_from: Any = None

    @property
    def unoffered(self) -> list[str]:
        """What it asks for that there is not."""
        keys = ("incremental", "parent_id", "storage_driver", "swift_container", "restore_from")
        return [key for key in keys if getattr(self, key)]


class CreateBackup(BaseModel):
    backup: BackupOrder


class RootOrder(BaseModel):
    password: Password | None = Field(None, description="Made up and returned when it is left out")


# --- Answers ------------------------------------------------------------------------------------------------------


class Link(BaseModel):
    href: str
    rel: str


class Reference(BaseModel):
    id: str
    links: list[Link]


class FlavorReference(BaseModel):
    id: int | str
    links: list[Link]


class DatastoreView(BaseModel):
    type: str
    version: str
    version_number: str | Absent = None


class VolumeView(BaseModel):
    size: int


class AddressView(BaseModel):
    address: str
    type: Literal["private", "public"] = "private"


class FaultView(BaseModel):
    message: str
    created: str


class ConfigurationReference(BaseModel):
    id: str
    name: str
    links: list[Link]


class StandbyView(BaseModel):
    site: str = Field(description="As `replication_device` names it; `default` is where the backend belongs")
    replica: Reference


class ReplicationView(BaseModel):
    sites: list[StandbyView]


class InstanceView(BaseModel):
    id: str
    name: str
    status: str
    operating_status: str = Field(
        description="HEALTHY, BLOCKED (it refuses writes), RESTART_REQUIRED or ERROR; empty while it is busy"
    )
    links: list[Link]
    flavor: FlavorReference
    datastore: DatastoreView
    region: str
    volume: VolumeView
    ip: list[str] | Absent = Field(default=None, description="Absent until it was placed on a host")
    port: int | Absent = None
    addresses: list[AddressView] | Absent = None
    replica_of: Reference | Absent = None
    replicas: list[Reference] | Absent = None
    site: str | Absent = Field(default=None, description="Where it is, when the backend has several sites")
    replication: ReplicationView | Absent = Field(default=None, description="Its replicas at other sites")
    configuration: ConfigurationReference | Absent = None
    cluster_id: str | Absent = Field(default=None, description="Of a member of a cluster")
    shard: str | Absent = Field(default=None, description="Of a member of a cluster: where in it")
    created: str | Absent = None
    updated: str | Absent = None
    service_status_updated: str | Absent = None
    fault: FaultView | Absent = None
    password: str | Absent = Field(default=None, description="Of the user `default`; shown once, by create")
    tenant_id: str | Absent = Field(default=None, description="Shown to the administrator")


class InstanceReply(BaseModel):
    instance: InstanceView


class InstanceList(BaseModel):
    instances: list[InstanceView]
    links: list[Link] | Absent = Field(default=None, description="The next page, when there is more")


class FlavorView(BaseModel):
    id: int | str
    str_id: str
    name: str
    ram: int
    vcpus: int
    disk: int = 0
    ephemeral: int = 0
    links: list[Link]


class FlavorReply(BaseModel):
    flavor: FlavorView


class FlavorList(BaseModel):
    flavors: list[FlavorView]


class VersionView(BaseModel):
    id: str
    name: str
    version: str
    links: list[Link]
    datastore: str | Absent = None


class VersionReply(BaseModel):
    version: VersionView


class VersionList(BaseModel):
    versions: list[VersionView]


class DatastoreDetail(BaseModel):
    id: str
    name: str
    links: list[Link]
    versions: list[VersionView]
    default_version: str | Absent = None


class DatastoreReply(BaseModel):
    datastore: DatastoreDetail


class DatastoreList(BaseModel):
    datastores: list[DatastoreDetail]


class ParameterView(BaseModel):
    name: str
    type: str
    datastore_version_id: str
    restart_required: bool
    default: str
    min: int | Absent = None
    max: int | Absent = None
    options: list[str] | Absent = None


class ParameterList(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    parameters: list[ParameterView] = Field(serialization_alias="configuration-parameters")


class ConfigurationView(BaseModel):
    id: str
    name: str
    description: str
    created: str
    updated: str
    datastore_name: str
    datastore_version_id: str
    datastore_version_name: str
    datastore_version_number: str


class ConfigurationDetail(ConfigurationView):
    values: dict[str, int | str]
    instance_count: int


class ConfigurationReply(BaseModel):
    configuration: ConfigurationDetail


class ConfigurationList(BaseModel):
    configurations: list[ConfigurationView]
    links: list[Link] | Absent = Field(default=None, description="The next page, when there is more")


class AttachedInstance(BaseModel):
    id: str
    name: str


class AttachedList(BaseModel):
    instances: list[AttachedInstance]
    links: list[Link] | Absent = Field(default=None, description="The next page, when there is more")


class DefaultConfiguration(BaseModel):
    configuration: dict[str, str]


class DefaultConfigurationReply(BaseModel):
    instance: DefaultConfiguration


class AbsoluteLimits(BaseModel):
    verb: Literal["ABSOLUTE"] = "ABSOLUTE"
    max_instances: int
    max_ram: int = Field(description="Megabytes")
    max_volumes: int = Field(description="Gigabytes")
    max_backups: int


class LimitList(BaseModel):
    limits: list[AbsoluteLimits]


class BackupDatastore(BaseModel):
    type: str
    version: str
    version_id: str


class BackupView(BaseModel):
    """`parent_id` is always empty, since there are no incremental backups; clients look for it."""

    id: str
    name: str
    description: str
    instance_id: str
    parent_id: str = ""
    status: str
    size: float = Field(description="Gigabytes")
    size_bytes: int
    checksum: str | Absent = Field(default=None, description="SHA-256 of the stored file")
    created: str
    updated: str
    datastore: BackupDatastore
    project_id: str
    fault: str | Absent = Field(default=None, description="Why it failed")
    replication_id: str | Absent = Field(default=None, description="The history of which it is a moment")
    replication_offset: int | Absent = Field(default=None, description="The moment, in bytes of that history")
    locationRef: str | Absent = Field(default=None, description="Shown to the administrator")  # noqa: N815


class BackupReply(BaseModel):
    backup: BackupView


class BackupList(BaseModel):
    backups: list[BackupView]
    links: list[Link] | Absent = Field(default=None, description="The next page, when there is more")


class DatabaseView(BaseModel):
    name: str


class UserView(BaseModel):
    name: str
    host: str = "%"
    databases: list[DatabaseView] = []


class UserReply(BaseModel):
    user: UserView


class UserList(BaseModel):
    users: list[UserView]


class MadeUser(BaseModel):
    name: str
    password: str | Absent = Field(default=None, description="Shown once, when it was made up here")


class MadeUsers(BaseModel):
    users: list[MadeUser]


class RootUser(BaseModel):
    name: str
    password: str


class RootReply(BaseModel):
    user: RootUser


class RootStatus(BaseModel):
    rootEnabled: bool  # noqa: N815


class ApiVersion(BaseModel):
    id: str
    status: str
    updated: str
    links: list[Link]


class ApiVersionReply(BaseModel):
    version: ApiVersion


class ApiVersionList(BaseModel):
    versions: list[ApiVersion]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
