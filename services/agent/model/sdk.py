"""The Anthropic SDK, imported without a look for garbage: its thousands of classes stay, and to go through them again
and again took a third of an agent's start.
"""

from __future__ import annotations

import gc

_WAS_ENABLED = gc.isenabled()
gc.disable()
try:
    import anthropic
finally:
    gc.freeze()
    if _WAS_ENABLED:
        gc.enable()

__all__ = ["anthropic"]
