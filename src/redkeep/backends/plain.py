"""The driver of a backend with one site: any number of managers, nothing to fail over to."""

from __future__ import annotations

from redkeep.backends.base import BaseDriver


class PlainDriver(BaseDriver):
    """Everything happens where it is."""

    SUPPORTS_ACTIVE_ACTIVE = True
