"""The version documents, which clients read without credentials."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse

from redkeep.api.blockstorage.microversions import LEAST, MOST, text
from redkeep.api.call import base_url_of


def document(request: Request) -> dict[str, Any]:
    """The version that is spoken at /v3."""
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": text(MOST),
        "min_version": text(LEAST),
        "updated": "2016-02-08T12:20:21Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": f"{base_url_of(request)}/v3/"},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }


async def show(request: Request) -> JSONResponse:
    """The version of the block storage API, and its microversions."""
    return JSONResponse({"versions": [document(request)]})


async def healthcheck(_: Request) -> PlainTextResponse:
    """This process answers. `/healthz` says more."""
    return PlainTextResponse("OK")
