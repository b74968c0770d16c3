"""`python -m tests.integration.publishing.hasty_vcs`: the vcs service with deadlines of seconds for what is remote, so
that a remote which hangs is given up while a test waits.
"""

from __future__ import annotations

import runpy
from datetime import timedelta
from functools import partial
from typing import Final

from services.vcs.forges import github
from services.vcs.git import push, remotes
from services.vcs.mirrors import mirrors

DEADLINE: Final = timedelta(seconds=8)

if __name__ == "__main__":
    for module, name in ((push, "PUSH_TIMEOUT"), (remotes, "ASK_TIMEOUT")):
        setattr(module, name, DEADLINE)
    for module, name, argument in ((mirrors, "Mirrors", "fetch_timeout"), (github, "GitHubForge", "total_timeout")):
        setattr(module, name, partial(getattr(module, name), **{argument: DEADLINE}))
    runpy.run_module("services.vcs.__main__", run_name="__main__")
