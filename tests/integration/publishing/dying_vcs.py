"""`python -m tests.integration.publishing.dying_vcs`: the vcs service, ended from within at the steps of a publication
that the variable STEPS names, one life after the other; the last life has none.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from services.jobs import publishing
from services.jobs.forge_comments import ForgeComments
from services.jobs.publishing import Publishing
from services.vcs.forges.github import forge
from services.vcs.forges.github.calls import RepositoryCalls
from services.vcs.forges.github.pulls import Pulls
from services.vcs.forges.github.wishes import Wishes
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.publishing import publisher
from services.vcs.worktrees.commits import Commits
from tests.integration.faults import failpoints

STEPS: Final[dict[str, tuple[Any, str]]] = {
    "claim": (Publishing, "claim"),
    "lease": (publishing, "grant_lease"),
    "fetch": (Mirrors, "fetch"),
    "commit": (Commits, "commit_patch"),
    "push": (publisher, "push"),
    "look_up": (Pulls, "open_from"),
    "create": (Pulls, "create"),
    "change": (Pulls, "change"),
    "wishes": (Wishes, "meet"),
    "label": (RepositoryCalls, "do"),
    "record": (Publishing, "delivered"),
    "say": (forge, "post_once"),
    "said": (ForgeComments, "posted"),
    "complete": (publishing, "_complete_run"),
}
"""`lease` and `complete` are the last statements of a transaction: after them it is not committed yet."""

if __name__ == "__main__":
    failpoints.CALLS.update(STEPS)
    sys.exit(failpoints.run_lives("services.vcs.__main__", os.environ["STEPS"].split()))
