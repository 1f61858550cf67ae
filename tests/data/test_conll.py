"""CoNLL files: columns, sentences, comments, and the lines at fault."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.data import read_table
from foretune.data.conll import looks_like_conll, parse_conll
from foretune.errors import DataError

TWO = "Anna\tB-PER\nsings\tO\n\nOslo\tB-LOC\n"
UNIVERSAL = (
    "# sent_id = 1\n# text = Kim can't\n"
    "1\tKim\tKim\tPROPN\tNNP\t_\t2\tnsubj\t_\t_\n"
    "2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tca\tcan\tAUX\tMD\t_\t0\troot\t_\t_\n"
    "3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_\n"
    "3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_\n\n"
    "1\t#\t#\tSYM\tNN\t_\t0\troot\t_\t_\n"
)


def rows(text, **options):
    table = parse_conll(text, "a.conll", **options)
    return table["tokens"].tolist(), table["tags"].tolist()


def message(text, **options):
    with pytest.raises(DataError) as caught:
        parse_conll(text, "a.conll", **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        TWO.rstrip("\n"),
        TWO.replace("\t", " "),
        TWO.replace("\n", "\r\n"),
        "\n\n" + TWO.replace("\n\n", "\n  \n\n") + "\n\n",
        "-DOCSTART- -X-\n\n" + TWO.replace("\t", "  "),
        "-DOCSTART-\tO\n" + TWO.replace("\n\n", "\n-DOCSTART-\tO\n"),
        "# id 7 domain=x\n" + TWO,
    ],
)
def test_sentences(text):
    assert rows(text) == ([["Anna", "sings"], ["Oslo"]], [["B-PER", "O"], ["B-LOC"]])


def test_columns_between_are_kept_and_numbered():
    table = parse_conll("Oslo NNP I-NP B-LOC\nis VBZ I-VP O\n", "a")
    assert list(table.columns) == ["tokens", "column_2", "column_3", "tags"]
    assert table["column_2"].tolist() == [["NNP", "VBZ"]] and table["tags"].tolist() == [["B-LOC", "O"]]
    assert table.attrs["names"] == {"1": "tokens", "2": "column_2", "3": "column_3", "4": "tags"}


def test_a_token_may_hold_blanks_between_tabs_and_no_break_blanks_anywhere():
    assert rows("1 000\tNUM\nm\tNOUN\n")[0] == [["1 000", "m"]]
    assert rows("1\u00a0000 NUM\nm NOUN\n")[0] == [["1\u00a0000", "m"]]


def test_a_hash_with_a_tag_is_a_token():
    assert rows("#\tSYM\n1\tNUM\n")[0] == [["#", "1"]]


def test_one_column_has_no_tags():
    assert list(parse_conll("Anna\nsings\n", "a").columns) == ["tokens"]


def test_universal():
    table = parse_conll(UNIVERSAL, "a.conllu", universal=True)
    assert table["tokens"].tolist() == [["Kim", "ca", "n't"], ["#"]]
    assert table["tags"].tolist() == [["PROPN", "AUX", "PART"], ["SYM"]]
    assert table["xpos"].tolist()[0] == ["NNP", "MD", "RB"] and "head" not in table
    assert table.attrs["names"]["upos"] == "tags" and table.attrs["names"]["8"] == "deprel"


def test_universal_without_tags_and_with_one_missing():
    bare = UNIVERSAL.replace("PROPN", "_").replace("AUX", "_").replace("PART", "_").replace("SYM", "_")
    assert "tags" not in parse_conll(bare.replace("\tVERB", "\t_"), "a", universal=True)
    assert "1 line without a tag (line 5)" in message(UNIVERSAL.replace("AUX", "_"), universal=True)


def test_wrong_number_of_columns_names_the_lines():
    found = message(TWO + "\nlost\nfine\tO\na\tb\tO\n")
    assert "2 lines without the 2 columns of the others" in found
    assert "line 6 (1: 'lost')" in found and "line 8 (3:" in found


def test_universal_needs_ten_columns():
    assert "line 1 (2: 'Anna B-PER')" in message(TWO, universal=True)


def test_missing_tags_and_tokens_name_the_lines():
    assert "1 line without a tag (line 2)" in message("Anna\tB-PER\nsings\t\nwell\tO\n")
    assert "1 line without a token (line 1)" in message("\tO\nsings\tO\nwell\tO\n")


@pytest.mark.parametrize("text", ["", "\n\n", "-DOCSTART- -X-\n\n"])
def test_empty(text):
    assert "is empty" in message(text)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.text("abz#éß语.-", min_size=1), st.sampled_from(["O", "B-X", "I-X"])), min_size=1
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_written_is_read(sentences):
    text = "\n".join("".join(f"{token}\t{tag}\n" for token, tag in sentence) for sentence in sentences)
    assert rows(text) == (
        [[token for token, _ in sentence] for sentence in sentences],
        [[tag for _, tag in sentence] for sentence in sentences],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO + "x\tO\n", True),
        ("Kim PROPN\nruns VERB\nfast ADV\n", True),
        ("# id 7\n" + TWO, True),
        ("good film\nbad film\ndull film\n", False),
        ("fine\tgood\npoor\tbad\nfine\tgood\n", False),
        ("so O\nas O\nit O\n", False),
        ("text\tlabel\nx\tO\ny\tB-X\n", False),
        ("a b\n\nlonger line here O\n", False),
        ("", False),
    ],
)
def test_sniffing(text, expected):
    assert looks_like_conll(text) is expected


@pytest.mark.parametrize("name", ["a.conll", "a.bio", "a.iob2", "a.txt", "a.tsv", "a"])
def test_read_by_name_or_shape(tmp_path, name):
    (tmp_path / name).write_text(TWO)
    table = read_table(tmp_path / name)
    assert table["tokens"].tolist() == [["Anna", "sings"], ["Oslo"]] and table.attrs["format"] == "conll"


def test_universal_by_name(tmp_path):
    (tmp_path / "a.conllu").write_text(UNIVERSAL)
    assert read_table(tmp_path / "a.conllu")["tags"].tolist()[1] == ["SYM"]


def test_undecodable_names_the_line(tmp_path):
    (tmp_path / "a.conll").write_bytes(b"Anna\tO\n\xe9t\xe9\tO\n")
    with pytest.raises(DataError, match="line 2 holds byte 0xE9"):
        read_table(tmp_path / "a.conll")
