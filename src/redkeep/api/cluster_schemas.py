"""Requests and answers about clusters as they look on the wire. As `schemas.py`, of which this is a part.

What only Redkeep has is said so in the field's description: no stock client sends or needs it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from redkeep.api.schemas import (
    Absent,
    ConfigurationReference,
    DatastoreOrder,
    FaultView,
    FlavorRef,
    FlavorReference,
    Link,
    Name,
    Nic,
    Nothing,
    Uuid,
    VolumeOrder,
    VolumeView,
)
from redkeep.decide.clusters import MOST_REPLICAS
from redkeep.model.slots import Pace

MOST_MEMBERS = 500
"""Of one request."""

Weights = Annotated[
    dict[Uuid, Annotated[float, Field(ge=0, le=1_000_000)]],
    Field(description="How much of the slots a member is to have, against 1 for all others; 0: none"),
]

PACE = Field(Pace.GENTLE, description="Of the slots: `fast` is over soon, and costs clients more of their latency")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


# --- Requests -----------------------------------------------------------------------------------------------------


class MemberOrder(BaseModel):
    """Unknown keys are ignored, as upstream; `modules` is refused (501)."""

    flavorRef: FlavorRef | None = None  # noqa: N815 (the wire's name)
    volume: VolumeOrder | None = None
    name: Name | None = Field(None, description="Made of the cluster's name and a number, when it is left out")
    availability_zone: str | None = Field(None, max_length=255, description="Of the host that it is to be placed on")
    nics: list[Nic] = Field(default=[], max_length=1)
    modules: Any = None


class ExtendedProperties(BaseModel):
    """What stock clients can say with `--extended-properties`. Unknown keys are ignored."""

    replicas_per_shard: int | None = Field(None, ge=0, le=MOST_REPLICAS, description="Redkeep's own")


class ClusterOrder(BaseModel):
    """Each of `instances` is the primary of a shard. Unknown keys are ignored, as upstream."""

    name: Name
    datastore: DatastoreOrder | None = None
    instances: list[MemberOrder] = Field(min_length=1, max_length=MOST_MEMBERS)
    locality: str | None = Field(None, pattern="^(affinity|anti-affinity)$", description="Members are always spread")
    configuration: Uuid | None = Field(None, description="A configuration group for all members, those to come too")
    extended_properties: ExtendedProperties | None = None
    replicas_per_shard: int | None = Field(
        None, ge=0, le=MOST_REPLICAS, strict=True, description="Redkeep's own: replicas to create beside each primary"
    )

    @property
    def replicas(self) -> int:
        """Replicas of each shard."""
        extended = self.extended_properties.replicas_per_shard if self.extended_properties else None
        return self.replicas_per_shard if self.replicas_per_shard is not None else extended or 0


class CreateCluster(BaseModel):
    cluster: ClusterOrder


class Grow(_Strict):
    instances: list[MemberOrder] = Field(min_length=1, max_length=MOST_MEMBERS)
    rebalance: bool = Field(False, strict=True, description="Give them their share of the slots afterwards")
    pace: Pace = PACE


class LeavingMember(BaseModel):
    id: Uuid


class Shrink(_Strict):
    instances: list[LeavingMember] = Field(min_length=1, max_length=MOST_MEMBERS)
    drain: bool = Field(False, strict=True, description="Move their slots to the others first")
    pace: Pace = PACE


class Rebalance(_Strict):
    weights: Weights = {}
    pace: Pace = PACE
    dry_run: bool = Field(False, strict=True, description="Only say, in the events, what would move")


class Promote(_Strict):
    id: Uuid


class TakeOver(_Strict):
    instances: list[Uuid] = Field(min_length=1, max_length=MOST_MEMBERS, description="Primaries that are lost")


class Upgrade(_Strict):
    datastore_version: str = Field(min_length=1, max_length=255, description="Name or id of a newer version")


class Replicas(_Strict):
    per_shard: int = Field(ge=0, le=MOST_REPLICAS, strict=True)


class Attach(_Strict):
    configuration_id: Uuid


def _whole(name: str) -> Any:
    """A list, which stock clients send, as the object of which it is the main part."""

    def wrap(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get(name), list):
            return {**value, name: {"instances": value[name]}}
        return value

    return wrap


class ClusterAction(BaseModel):
    """Exactly one of them. `grow` and `shrink` are lists of instances, or objects with `instances` and what is
    Redkeep's own; `rebalance`, `promote`, `take_over`, `replicas`, `restart`, `cancel` are Redkeep's own altogether."""

    model_config = ConfigDict(
        extra="forbid", populate_by_name=True, json_schema_extra={"minProperties": 1, "maxProperties": 1}
    )

    grow: Grow = Grow.model_construct()
    shrink: Shrink = Shrink.model_construct()
    reset_status: Nothing = Field(default={}, alias="reset-status")
    rebalance: Rebalance = Rebalance.model_construct()
    promote: Promote = Promote.model_construct()
    take_over: TakeOver = TakeOver.model_construct()
    replicas: Replicas = Replicas.model_construct()
    upgrade: Upgrade = Upgrade.model_construct()
    restart: Nothing = {}
    cancel: Nothing = {}
    configuration_attach: Attach = Attach.model_construct()
    configuration_detach: Nothing = {}

    @property
    def asked(self) -> str:
        return next(iter(self.model_fields_set))

    @model_validator(mode="before")
    @classmethod
    def _one_that_is_known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) != 1:
            raise ValueError("must hold exactly one action")
        (name,) = value
        known = [field.alias or key for key, field in cls.model_fields.items()]
        if name not in known:
            raise ValueError(f"Action {str(name)[:64]} not supported: there are {', '.join(known)}")
        return _whole(name)(value) if name in ("grow", "shrink") else value


# --- Answers ------------------------------------------------------------------------------------------------------


class TaskView(BaseModel):
    id: int
    name: str
    description: str


class MemberSummary(BaseModel):
    id: str
    name: str
    type: str = "member"
    links: list[Link]


class MemberView(MemberSummary):
    status: str
    ip: list[str]
    port: int | Absent = None
    flavor: FlavorReference
    volume: VolumeView
    role: str = Field(description="primary or replica")
    shard: str = Field(description="The same for those that have the same data")
    fault: FaultView | Absent = None


class ClusterSummary(BaseModel):
    id: str
    name: str
    task: TaskView
    created: str
    updated: str
    links: list[Link]
    datastore: dict[str, str]
    ip: list[str]
    replicas_per_shard: int
    fault: FaultView | Absent = Field(default=None, description="Why its last task was given up")
    progress: float | Absent = Field(default=None, description="Of its task, from 0 to 1")
    progress_detail: str | Absent = None


class ClusterItem(ClusterSummary):
    instances: list[MemberSummary]


class ClusterView(ClusterSummary):
    instances: list[MemberView]
    configuration: ConfigurationReference | Absent = None
    password: str | Absent = Field(default=None, description="Of the user `default`; shown once, by create")


class ClusterReply(BaseModel):
    cluster: ClusterView


class ClusterList(BaseModel):
    clusters: list[ClusterItem]
    links: list[Link] | Absent = Field(default=None, description="The next page, when there is more")
