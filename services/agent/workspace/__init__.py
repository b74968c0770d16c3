"""The run's files as its tools see them: everything beneath one folder, and nothing outside it."""

from services.agent.workspace.errors import (
    MissingError,
    NotTextError,
    PathRefusedError,
    StaleReadError,
    WorkspaceError,
)
from services.agent.workspace.paths import Parts, is_closed, joined
from services.agent.workspace.reading import Excerpt
from services.agent.workspace.workspace import FileChange, Listing, Workspace

__all__ = [
    "Excerpt",
    "FileChange",
    "Listing",
    "MissingError",
    "NotTextError",
    "Parts",
    "PathRefusedError",
    "StaleReadError",
    "Workspace",
    "WorkspaceError",
    "is_closed",
    "joined",
]
