"""What Trove's clients can ask for and Redkeep does not offer: said in words that they can show."""

from __future__ import annotations

from fastapi import Response

from redkeep.api.call import ThisCall
from redkeep.api.schemas import ClusterList
from redkeep.errors import Refused


async def not_offered(call: ThisCall) -> Response:
    """501."""
    noun = call.url.path.removeprefix(f"/v1.0/{call.project_id}/").split("/")
    name = noun[2] if noun[0] == "instances" and len(noun) > 2 else noun[0]
    raise Refused(f"Redkeep does not offer {name[:64]}.", kind="unsupported")


async def no_clusters(call: ThisCall) -> ClusterList:  # noqa: ARG001
    """There are none."""
    return ClusterList(clusters=[])


async def no_cluster(call: ThisCall, cluster_id: str) -> Response:  # noqa: ARG001
    """404, by which the clients know that a name is not a cluster's."""
    raise Refused(f"Cluster '{cluster_id[:64]}' cannot be found.", kind="missing")
