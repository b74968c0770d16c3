"""The document's polling script, run as it is printed, while somebody does the task."""

import asyncio
import shutil

import pytest

from tests.contract.codebot import document
from tests.contract.codebot.conftest import Codebot
from tests.contract.serving import Fleet
from tests.integration.jobs.changes import publish
from tests.integration.waiting import until_async

MISSING = [program for program in ("bash", "curl", "jq") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the script needs {', '.join(MISSING)}, not installed here")


async def test_the_script_ends_with_the_task(codebot: Codebot, fleet: Fleet) -> None:
    script = asyncio.create_task(codebot.shell(document.POLL, shows_headers=False))
    try:
        await until_async(lambda: _is_there(codebot))
        (task,) = await codebot.tasks()
        await publish(fleet.domain, await fleet.claim(task["task_id"]), 7)
        printed = await script
    finally:
        script.cancel()
    *before, last = printed.splitlines()
    assert last == "Final status: completed"
    assert set(before) <= {"Status: pending", "Status: running"}


async def _is_there(codebot: Codebot) -> bool:
    return len(await codebot.tasks()) == 1
