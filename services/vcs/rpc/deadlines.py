"""How long each call may take whose caller has set no deadline: longer than the work's own bounds, never for ever."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

_FETCH: Final = timedelta(minutes=40)
_LOCAL: Final = timedelta(minutes=10)
_FORGE: Final = timedelta(minutes=1)

DEADLINES: Final[Mapping[str, timedelta]] = {
    "Prepare": _FETCH,
    "Checkpoint": _LOCAL,
    "Restore": timedelta(minutes=30),
    "Commit": _LOCAL,
    "Release": timedelta(seconds=30),
    "Diff": _FETCH,  # either commit may have to be fetched
    "Sync": _FETCH,
    "Clone": _FETCH,
    "JanitorStatus": _LOCAL,  # as long as the disk takes to be measured
    "ListRepositories": timedelta(minutes=5),
    "GetPermission": _FORGE,
    "GetIssue": timedelta(minutes=2),  # pages of comments
    "GetFailedChecks": timedelta(minutes=2),
    "SetUpApp": timedelta(minutes=2),  # not to be cut off: what it asks for is given out once
    "LookUpChangeset": _FORGE,
    "CloseChangeset": _FORGE,
    "ReopenChangeset": _FORGE,
    "MergeChangeset": timedelta(minutes=2),
    "Comment": _FORGE,
}
