"""The run's state machine, every state with every transition, against a table written out here."""

import itertools

import pytest

from services.contracts.words import RunState
from services.jobs.states import FINAL_RUN_STATES, RUN_RULES, IllegalTransitionError, RunTransition, after, sources

LEGAL = {
    (RunState.QUEUED, RunTransition.ADMIT): RunState.RUNNING,
    (RunState.QUEUED, RunTransition.FAIL): RunState.FAILED,
    (RunState.QUEUED, RunTransition.CANCEL): RunState.CANCELLED,
    (RunState.DISPATCHED, RunTransition.RECALL): RunState.QUEUED,
    (RunState.DISPATCHED, RunTransition.FAIL): RunState.FAILED,
    (RunState.DISPATCHED, RunTransition.CANCEL): RunState.CANCELLED,
    (RunState.RUNNING, RunTransition.INTERRUPT): RunState.QUEUED,
    (RunState.RUNNING, RunTransition.LOSE): RunState.QUEUED,
    (RunState.RUNNING, RunTransition.RETRY): RunState.QUEUED,
    (RunState.RUNNING, RunTransition.PARK): RunState.WAITING,
    (RunState.RUNNING, RunTransition.HAND_OVER): RunState.PUBLISHING,
    (RunState.RUNNING, RunTransition.COMPLETE): RunState.COMPLETED,
    (RunState.RUNNING, RunTransition.FAIL): RunState.FAILED,
    (RunState.RUNNING, RunTransition.CANCEL): RunState.CANCELLED,
    (RunState.WAITING, RunTransition.WAKE): RunState.QUEUED,
    (RunState.WAITING, RunTransition.COMPLETE): RunState.COMPLETED,
    (RunState.WAITING, RunTransition.FAIL): RunState.FAILED,
    (RunState.WAITING, RunTransition.CANCEL): RunState.CANCELLED,
    (RunState.PUBLISHING, RunTransition.COMPLETE): RunState.COMPLETED,
    (RunState.PUBLISHING, RunTransition.FAIL): RunState.FAILED,
    (RunState.PUBLISHING, RunTransition.CANCEL): RunState.CANCELLED,
}


@pytest.mark.parametrize(("state", "transition"), list(itertools.product(RunState, RunTransition)))
def test_every_state_and_transition(state: RunState, transition: RunTransition) -> None:
    if (state, transition) in LEGAL:
        assert after(state, transition) is LEGAL[state, transition]
        assert state in sources(transition)
    else:
        with pytest.raises(IllegalTransitionError, match=f"a run that is {state} cannot {transition}"):
            after(state, transition)
        assert state not in sources(transition)


def test_every_transition_has_a_rule_and_nothing_leaves_a_final_state() -> None:
    assert set(RUN_RULES) == set(RunTransition)
    assert {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED} == FINAL_RUN_STATES
    assert not any(rule.sources & FINAL_RUN_STATES for rule in RUN_RULES.values())


def test_every_state_that_is_not_final_can_fail_and_be_cancelled() -> None:
    for transition in (RunTransition.FAIL, RunTransition.CANCEL):
        assert set(sources(transition)) == set(RunState) - FINAL_RUN_STATES
