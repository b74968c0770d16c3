"""What every Git command is run with: configuration that wins over any repository's own, an environment from scratch.

Nothing that a repository, a worktree or the machine configures may start a program or ask a question.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

# The deployment's certificates; everything else of our own environment stays out.
_PASSED_ON: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO")

# Findings in objects that old programs made and that no check-out misreads: known repositories have them for ever, and
# would be refused as a whole. What could mislead a checkout (names, .git, .gitmodules, double entries) stays an error.
_HARMLESS_FINDINGS: Final = (
    *("zeroPaddedFilemode", "badFilemode", "missingSpaceBeforeDate", "missingSpaceBeforeEmail"),
    *("missingNameBeforeEmail", "missingEmail", "badEmail", "badName", "badDate", "badDateOverflow", "zeroPaddedDate"),
    *("badTimezone", "missingTaggerEntry", "badTagName", "multipleAuthors"),
)

# As command-line configuration, which wins over a repository's own.
CONFIGURATION: Final[Mapping[str, str]] = {
    # Nothing of a repository is executed.
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "protocol.ext.allow": "never",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    # A link is checked out as a file that holds its target: no path leads out of a worktree.
    "core.symlinks": "false",
    # A change shows in the one time that nobody can set, and a file that was put in another's place in its inode.
    "core.trustctime": "true",
    "core.checkStat": "default",
    # What a remote sends is checked before it becomes part of a mirror.
    "transfer.fsckObjects": "true",
    **{f"fetch.fsck.{finding}": "ignore" for finding in _HARMLESS_FINDINGS},
    # The same bytes on every machine.
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.autocrlf": "false",
    "core.quotePath": "false",
    # Packs appear whole or not at all; loose objects of a killed fetch would look like a complete commit.
    "fetch.unpackLimit": "1",
    # Mirrors are consolidated under their lock, never by a command that happens to run.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Many runs pin and unpin side by side in one mirror.
    "core.packedRefsTimeout": "5000",
    "core.filesRefLockTimeout": "2000",
    # The address that was checked is the address that is asked; a stalled transfer ends.
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}


def environment(home: Path, schemes: Collection[str]) -> dict[str, str]:
    """All that Git is told besides. ``home``: its folder. ``schemes``: what may be transported."""
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        # Without a GIT_DIR no repository around our own folders is found.
        "GIT_CEILING_DIRECTORIES": str(home.parent),
        "GIT_ALLOW_PROTOCOL": ":".join(schemes),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        # Nobody is there to answer a question: what is asked is empty, so that the command fails instead of waiting.
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS": "true",
        # Over ssh only by way of an address that was checked.
        "GIT_SSH_COMMAND": "false",
    }
