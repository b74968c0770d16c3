"""The delivery gate: whether the tests of a repository pass with what the model made of it."""

from services.agent.verification.in_base import detect_in_base
from services.agent.verification.verdict import TESTS_FAILED_MARK, Verdict, prompt_of, tests_ended, tests_started
from services.agent.verification.verifier import Verifier

__all__ = ["TESTS_FAILED_MARK", "Verdict", "Verifier", "detect_in_base", "prompt_of", "tests_ended", "tests_started"]
