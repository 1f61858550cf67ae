from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from foretune.errors import ConfigError, DataError
from foretune.evaluation.tags import Span, scheme_of_tags, spans_of_tags

CONLL = Path(__file__).parents[3] / "shared" / "data" / "ner" / "conll2003" / "dev.conll"


def tags(prefixes: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["O", *(f"{p}-{label}" for p in prefixes for label in ("PER", "LOC"))]))


def seqeval_default(sequence: list[str]) -> list[Span]:
    return [(start, end + 1, label) for label, start, end in get_entities(sequence)]


def seqeval_strict(sequence: list[str], scheme: type) -> list[Span]:
    return [(e.start, e.end, e.tag) for e in Entities([sequence], scheme).entities[0]]


@given(tags("BI") | tags("BIES"))
@settings(max_examples=300, deadline=None)
def test_repair_is_conllevals_as_in_seqevals_default(sequence: list[str]) -> None:
    assert spans_of_tags(sequence) == seqeval_default(sequence)


@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "L-A", "U-A", "B-B", "I-B", "L-B", "U-B"])))
@settings(max_examples=200, deadline=None)
def test_bilou_is_bioes_by_other_letters(sequence: list[str]) -> None:
    renamed = [tag.replace("L-", "E-").replace("U-", "S-") for tag in sequence]
    assert spans_of_tags(sequence, "BILOU") == spans_of_tags(renamed, "BIOES")
    assert spans_of_tags(sequence, "BILOU", strict=True) == seqeval_strict(sequence, BILOU)


@given(tags("BI"))
@settings(max_examples=200, deadline=None)
def test_strict_is_seqevals_strict_iob2(sequence: list[str]) -> None:
    assert spans_of_tags(sequence, "BIO", strict=True) == seqeval_strict(sequence, IOB2)


@given(tags("BIES"))
@settings(max_examples=200, deadline=None)
def test_strict_is_seqevals_strict_iobes(sequence: list[str]) -> None:
    assert spans_of_tags(sequence, "BIOES", strict=True) == seqeval_strict(sequence, IOBES)


@pytest.mark.parametrize(
    ("sequence", "scheme", "spans"),
    [
        ("B-PER I-PER O B-LOC", "BIO", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("I-PER I-PER O I-LOC B-LOC", "BIO", [(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC")]),  # IOB1
        ("B-PER E-PER S-LOC", "BIOES", [(0, 2, "PER"), (2, 3, "LOC")]),
        ("B-PER M-PER E-PER O", "BIOES", [(0, 3, "PER")]),  # BMES
        ("B-PER L-PER U-LOC U-LOC", "BILOU", [(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC")]),
        ("PER PER O LOC PER", "IO", [(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "PER")]),
        ("B-a-b I-a-b", "BIO", [(0, 2, "a-b")]),
        ("B I O B", "BIO", [(0, 2, "_"), (3, 4, "_")]),
        ("date-time date-time PER", "IO", [(0, 2, "date-time"), (2, 3, "PER")]),
        ("O O", "IO", []),
        ("", "IO", []),
    ],
)
def test_each_scheme_is_found_and_read(sequence: str, scheme: str, spans: list[Span]) -> None:
    assert scheme_of_tags(sequence.split()) == scheme
    assert spans_of_tags(sequence.split()) == spans


def test_inside_without_a_beginning_is_repaired_or_dropped() -> None:
    sequence = ["O", "I-PER", "I-PER", "B-LOC", "I-PER"]
    assert spans_of_tags(sequence) == [(1, 3, "PER"), (3, 4, "LOC"), (4, 5, "PER")]
    assert spans_of_tags(sequence, strict=True) == [(3, 4, "LOC")]


def test_what_is_not_of_the_scheme_is_an_error() -> None:
    with pytest.raises(DataError, match="'PER' is not written in the scheme BIO"):
        spans_of_tags(["B-PER", "PER"], "BIO")
    with pytest.raises(ConfigError, match="Did you mean 'BIOES'"):
        spans_of_tags(["O"], "BIOE")  # type: ignore[arg-type]


def test_real_sentences_are_read_as_seqeval_reads_them() -> None:
    if not CONLL.exists():
        pytest.skip("needs ner/conll2003 in shared/data, which is not here")
    sentences = [
        [line.split("\t")[1] for line in block.splitlines()]
        for block in CONLL.read_text(encoding="utf-8").strip().split("\n\n")
    ]
    found = [spans_of_tags(sentence) for sentence in sentences]
    assert found == [seqeval_default(sentence) for sentence in sentences]
    assert found == [spans_of_tags(sentence, "BIO", strict=True) for sentence in sentences]  # BIO2 is whole
    assert scheme_of_tags(tag for sentence in sentences for tag in sentence) == "BIO"
    assert sum(map(len, found)) == 5942  # as published
