"""Proving that a running engine scores right: what to ask (cases), what was seen (observation), and what
follows from it (checks, ranking, verdict). All of it is pure: engine_api asks, verifier decides when.
"""

from rerank_runtime.verification.cases import Case
from rerank_runtime.verification.settings import VARIABLE, Mode, Settings

__all__ = ["VARIABLE", "Case", "Mode", "Settings"]
