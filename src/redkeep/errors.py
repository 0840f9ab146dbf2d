"""One tree of errors, arranged by what the caller can do about them.

Nothing here knows HTTP or Redis: `api/faults.py` and the northbound's border translate. An error never claims more,
or less, than is known: `Unavailable` says that nothing ran, `OutcomeUnknown` that it may have.
"""


class RedkeepError(Exception):
    """Root of all errors that Redkeep raises on purpose."""


class Refused(RedkeepError):
    """The request is wrong and stays wrong: change it. `kind` is a stable word for what is wrong with it.

    Kinds: `invalid`, `missing` (an id that is not there), `forbidden`, `conflict`, `busy` (not in the right state),
    `too_large` (a quota, a disk), `unsupported`, `unauthorized`.
    """

    def __init__(self, message: str, *, kind: str = "invalid") -> None:
        super().__init__(message)
        self.kind = kind


class NotNow(RedkeepError):
    """Right request, wrong moment: the same call may succeed later without any change."""


class Unavailable(RedkeepError):
    """The other side could not be reached, and the request did **not** run. Repeat it freely."""


class OutcomeUnknown(RedkeepError):
    """The request may have run, or not. Repeat it only if running it twice is harmless."""


class StaleEpoch(RedkeepError):
    """Somebody with a newer lease has spoken. Stop acting; look again."""

    def __init__(self, message: str, *, seen: int = 0) -> None:
        super().__init__(message)
        self.seen = seen
