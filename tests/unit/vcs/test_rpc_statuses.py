"""Each way to fail has the status that tells a caller what to do, and fits into the metadata that clients take."""

import urllib.parse
from base64 import b64encode
from collections.abc import Iterator

import grpc
import pytest

from services.contracts.v1 import vcs_pb2
from services.vcs import errors
from services.vcs.forges.github.errors import ForgeInvalidError
from services.vcs.mirrors import mirrors
from services.vcs.rpc import fields
from services.vcs.rpc.deadlines import DEADLINES
from services.vcs.rpc.statuses import _head, detail_of, status_of
from services.vcs.worktrees import lfs, sparse

MOST_METADATA_BYTES = 8 * 1024
NEVER_RAISED = {errors.VcsError, errors.ForgeError}

EXPECTED: dict[str, list[errors.VcsError]] = {
    "INVALID_ARGUMENT": [
        fields.FieldRefusedError("field", "reason"),
        errors.RepositoryRefusedError("x"),
        errors.RefRefusedError("x"),
        errors.MetadataRefusedError("x"),
        errors.WorktreeRefusedError("x"),
        sparse.PathRefusedError("x"),
    ],
    "NOT_FOUND": [
        errors.UnknownWorktreeError("x"),
        mirrors.UnknownMirrorError("x"),
        errors.ForgeNotFoundError("x"),
    ],
    "FAILED_PRECONDITION": [
        errors.LeaseLostError("x"),
        errors.PatchRefusedError("x"),
        errors.ForgeRefusedError("x"),
        ForgeInvalidError("x"),
        errors.CloneFailedError("x"),
        errors.PushRejectedError("x"),
        errors.CredentialsError("x"),
        errors.AppSetUpUnclearError("x"),
        errors.AppLostError("x"),
        lfs.LfsRefusedError("x"),
        lfs.LfsUnavailableError("x"),
    ],
    "RESOURCE_EXHAUSTED": [
        errors.PatchTooLargeError("x"),
        errors.GitOutputTooLargeError("x"),
        errors.GitFileTooLargeError("x"),
        errors.ForgePausedError("x", seconds=1),
    ],
    "DEADLINE_EXCEEDED": [errors.GitTimeoutError("x")],
    "UNAVAILABLE": [
        errors.ForgeUnavailableError("x"),
        errors.CloneFailedError("x", retryable=True),
        errors.PushRejectedError("x", retryable=True),
        errors.BusyError("x", retryable=True),
    ],
    "INTERNAL": [errors.GitError("x"), errors.PatchInexactError("x"), errors.GitUnfitError("x")],
}
CASES = [(error, code) for code, of_code in EXPECTED.items() for error in of_code]


def kinds(root: type[errors.VcsError] = errors.VcsError) -> Iterator[type[errors.VcsError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize(("error", "code"), CASES, ids=[f"{type(error).__name__}-{code}" for error, code in CASES])
def test_each_error_has_its_status(error: errors.VcsError, code: str):
    assert status_of(error) is grpc.StatusCode[code]


def test_no_error_is_left_out():
    assert {type(error) for error, _ in CASES} == set(kinds()) - NEVER_RAISED


@pytest.mark.parametrize("letter", ["x", "é", "語", "🦀"])
def test_an_error_of_any_length_fits_into_what_clients_take(letter: str):
    error = errors.CloneFailedError(letter * 10_000, git_message=letter * 10_000 + " the end")
    words = urllib.parse.quote(_head(str(error)))
    detail = detail_of(error)
    assert len(words) + len(b64encode(detail.SerializeToString())) < MOST_METADATA_BYTES - 500
    assert detail.git_message.endswith(f"{letter} the end")
    assert _head(str(error)).startswith(letter * 300)


def test_each_method_has_a_deadline():
    assert set(DEADLINES) == set(vcs_pb2.DESCRIPTOR.services_by_name["Vcs"].methods_by_name)
