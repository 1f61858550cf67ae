"""One hash per content: order, borders between strings and the presence of labels all count."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.data import fingerprint

TEXTS = st.lists(st.text(max_size=5), max_size=4)


def test_pinned():
    assert len(fingerprint(["a"], ["b"])) == 64
    record = (1).to_bytes(8, "little") + b"a"
    assert fingerprint(["a"], None) == hashlib.sha256(b"foretune data 1\ntexts\n" + record).hexdigest()


def test_order_counts():
    assert fingerprint(["a", "b"], None) != fingerprint(["b", "a"], None)
    assert fingerprint(["a", "b"], ["x", "y"]) != fingerprint(["a", "b"], ["y", "x"])


def test_borders_count():
    assert fingerprint(["ab", ""], None) != fingerprint(["a", "b"], None)
    assert fingerprint(["a"], ["b"]) != fingerprint(["ab"], [""])


def test_labels_count():
    assert len({fingerprint(["a"], None), fingerprint(["a"], [""]), fingerprint(["a", ""], None)}) == 3


@given(TEXTS, TEXTS)
def test_equal_only_for_equal_content(left, right):
    assert (fingerprint(left, None) == fingerprint(right, None)) == (left == right)


def test_odd_strings_have_a_hash():
    assert fingerprint(["\ud800"], None) != fingerprint(["\ud801"], None)


def test_lengths_must_agree():
    with pytest.raises(ValueError):
        fingerprint(["a"], [])
