"""Why a vcs call failed is a reason that a run may end with, or one that its agent knows what to do about."""

import inspect

from services.contracts.words import ExitReason
from services.vcs import errors


def test_every_vcs_error_has_a_known_exit_reason() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.VcsError)]
    known = {reason.value for reason in ExitReason} | {"lease_lost", "patch_too_large"}

    assert len(kinds) > 1
    assert {kind.__name__: kind.exit_reason for kind in kinds if kind.exit_reason not in known} == {}
    assert [kind for kind in kinds if kind.exit_reason == "lease_lost"] == [errors.LeaseLostError]
    assert [kind for kind in kinds if kind.exit_reason == "patch_too_large"] == [errors.PatchTooLargeError]
