"""All that Git and forges are asked: mirrors, worktrees, commits, publications. Only here are credentials for them.

`docs/vcs.md` tells the whole of it; `forges` has what is particular to a forge, `rpc` the calls of agents and gateways.
"""
