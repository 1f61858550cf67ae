"""Spans out of tag sequences, in every tagging scheme in use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from foretune.errors import ConfigError, DataError, did_you_mean

#: First token, token after the last, label: end exclusive.
Span = tuple[int, int, str]
Scheme = Literal["BIO", "BIOES", "BILOU", "IO"]
SCHEMES: tuple[Scheme, ...] = ("BIO", "BIOES", "BILOU", "IO")

_PREFIXED = re.compile(r"([BIESLUM])(?:-(.+))?", re.DOTALL)
#: L(ast) and U(nit) of BILOU are E(nd) and S(ingle) of BIOES; so is M(iddle) of BMES an I(nside).
_SAME = {"L": "E", "U": "S", "M": "I"}


def scheme_of_tags(tags: Iterable[str]) -> Scheme:
    """Return the scheme that a set of tags is written in.

    `"IO"` are plain labels (`PER PER O`); `"BIO"` covers BIO2, IOB1 and I- alone, which one rule decodes;
    `"BIOES"` has E- or S- (BMES counts here), `"BILOU"` L- or U-.
    """
    used = {tag for tag in tags if tag != "O"}
    matches = [_PREFIXED.fullmatch(tag) for tag in used]
    prefixes = {match[1] for match in matches if match}
    if not used or not all(matches):
        return "IO"
    if prefixes & {"L", "U"}:
        return "BILOU"
    return "BIOES" if prefixes & {"E", "S", "M"} else "BIO"


def _piece(tag: str, scheme: Scheme) -> tuple[str, str]:
    """Return (O, B, I, E or S; label) of one tag. Raises DataError for a tag that is not of the scheme."""
    if tag == "O":
        return "O", ""
    if scheme == "IO":
        return "I", tag
    match = _PREFIXED.fullmatch(tag)
    if not match:
        raise DataError(
            f"The tag {tag!r} is not written in the scheme {scheme}: expected O, or a prefix and a label such as"
            " B-PER. Correct the tag, or choose the scheme IO for labels without prefixes."
        )
    return _SAME.get(match[1], match[1]), match[2] or "_"


def _lenient(pieces: list[tuple[str, str]]) -> list[Span]:
    """Return the spans of conlleval: I- or E- without a beginning begins one."""
    spans: list[Span] = []
    start, before, label = -1, "O", ""
    for i, (prefix, new) in enumerate([*pieces, ("O", "")]):
        # O, B or S here, E or S before, and another label each part two spans.
        parted = prefix in "OBS" or before in "ES" or new != label
        if start >= 0 and parted:
            spans.append((start, i, label))
        if prefix == "O":
            start = -1
        elif start < 0 or parted:
            start = i
        before, label = prefix, new
    return spans


def _strict(pieces: list[tuple[str, str]], closed: bool) -> list[Span]:
    """Return only the spans that are whole: from B- over I-, and, where `closed`, to E-; or S- alone."""
    spans: list[Span] = []
    start, label = -1, ""
    for i, (prefix, new) in enumerate([*pieces, ("O", "")]):
        inside = start >= 0 and prefix in "IE" and new == label
        if start >= 0 and not inside and not closed:
            spans.append((start, i, label))
        if inside and prefix == "E":
            spans.append((start, i + 1, label))
        if prefix == "S":
            spans.append((i, i + 1, new))
        if prefix == "B":
            start, label = i, new
        elif not inside or prefix == "E":
            start = -1
    return spans


def spans_of_tags(tags: Sequence[str], scheme: Scheme | None = None, strict: bool = False) -> list[Span]:
    """Return the spans (start, end, label) of one sentence's tags, end exclusive, in order.

    Without `scheme` it is found from these tags; pass `scheme_of_tags` of a whole set to decide once.
    Malformed sequences are repaired as by the script conlleval of CoNLL-2000 and 2003: a span begins at B-
    and S-, and at any other tag after O, after E- or S-, or after another label (so I- without B- begins
    one, as IOB1 has it); that is seqeval's default mode. `strict` drops such spans instead, and in BIOES
    and BILOU those without an end: seqeval's `mode="strict"` with IOB2, IOBES and BILOU. A prefix without a
    label (`B I O`) has the label `_`. Raises DataError for a tag that is not of the scheme, ConfigError for
    an unknown scheme.
    """
    if scheme is not None and scheme not in SCHEMES:
        raise ConfigError(
            f"Unknown tagging scheme {scheme!r}: expected one of {', '.join(SCHEMES)}."
            f"{did_you_mean(scheme, SCHEMES)}"
        )
    known = scheme or scheme_of_tags(tags)
    pieces = [_piece(tag, known) for tag in tags]
    if strict and known != "IO":
        return _strict(pieces, closed=known != "BIO")
    return _lenient(pieces)
