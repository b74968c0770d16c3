from pathlib import Path

import pytest

from services.agent.sandbox.cgroups import Cgroups, Hierarchy, hierarchies
from services.agent.sandbox.limits import Limits

LIMITS = Limits(memory_bytes=1_000, processes=7)


def found(tmp_path: Path, memberships: str, mounts: str) -> list[Hierarchy]:
    (tmp_path / "cgroup").write_text(memberships)
    (tmp_path / "mountinfo").write_text(mounts)
    return list(hierarchies(tmp_path / "cgroup", tmp_path / "mountinfo"))


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    found_ = found(
        tmp_path,
        "4:memory:/service\n8:pids:/\n0::/\n",
        "35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n39 31 0:36 / /cg/pids rw - cgroup cgroup rw,pids\n",
    )
    assert [(each.parent, set(each.controllers)) for each in found_] == [
        (Path("/cg/memory/service"), {"memory"}),
        (Path("/cg/pids"), {"pids"}),
    ]
    assert found_[1].limits(LIMITS) == {"pids.max": "7"}


@pytest.mark.parametrize("shares", ["service.scope", "service.scope/leaf"])
def test_version_2_needs_a_cgroup_that_shares_its_memory_out(tmp_path: Path, shares: str) -> None:
    (tmp_path / "cg/service.scope/leaf").mkdir(parents=True)
    mounts = f"41 31 0:38 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n"
    assert found(tmp_path, "0::/service.scope/leaf\n", mounts) == []
    (tmp_path / "cg" / shares / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (hierarchy,) = found(tmp_path, "0::/service.scope/leaf\n", mounts)
    assert hierarchy.parent == tmp_path / "cg" / shares
    assert hierarchy.limits(LIMITS) == {"memory.max": "1000", "memory.swap.max?": "0", "pids.max": "7"}


def test_a_cgroup_that_cannot_be_limited_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cgroups([Hierarchy(tmp_path / "missing", frozenset({"pids"}), 1)]).make(LIMITS)
    assert list(tmp_path.iterdir()) == []
