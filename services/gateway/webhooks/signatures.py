"""Whether a delivery of a webhook comes from whom it says: HMAC-SHA256 over the raw body, as GitHub signs.

https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
"""

from __future__ import annotations

import hashlib
import hmac
import re

_PREFIX = "sha256="
_FORM = re.compile(r"sha256=[0-9a-f]{64}")


def is_signature(text: str) -> bool:
    """Whether it has the form of one."""
    return _FORM.fullmatch(text) is not None


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """``signature``: the header `X-Hub-Signature-256`. Compared in constant time."""
    expected = _PREFIX + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
