"""One hash for the content of a data set, so that a run can say which data it saw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_FORMAT = b"foretune data 1\n"


def fingerprint(texts: Sequence[str], labels: Sequence[str] | None) -> str:
    """Return the SHA-256, in hex, of texts and labels in their order.

    Every string is preceded by its length in bytes, so no two data sets give the same bytes; a data set
    without labels differs from one with empty labels. Raises ValueError if the lengths differ.
    """
    digest = hashlib.sha256(_FORMAT + (b"texts\n" if labels is None else b"texts and labels\n"))
    if labels is None:
        for text in texts:
            digest.update(_prefixed(text))
    else:
        for text, label in zip(texts, labels, strict=True):
            digest.update(_prefixed(text) + _prefixed(label))
    return digest.hexdigest()


def _prefixed(text: str) -> bytes:
    # surrogatepass: the hash of odd strings must exist too; refusing them is the audit's work.
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data
