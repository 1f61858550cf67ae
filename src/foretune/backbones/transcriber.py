"""What a speech recogniser writes with: its tokenizer, and a character vocabulary where the model has none."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data.text import row_list
from foretune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from foretune.data.store import RaggedStore

MOST_UNKNOWN = 0.5  # of the letters of training transcripts
CTC, SEQ2SEQ = "ctc", "seq2seq"
BLANK, UNKNOWN, BETWEEN = "[PAD]", "[UNK]", "|"  # as wav2vec 2.0 names them; the blank is the padding token


@dataclass(frozen=True)
class Transcriber:
    """A tokenizer and the way of writing: "ctc", a letter or the blank for every frame, or "seq2seq", by a decoder.

    `blank`: id of the blank, and of the padding.
    """

    tokenizer: Any
    way: str
    blank: int

    def ids(self, texts: Sequence[str], start: int | None = None) -> list[np.ndarray]:
        """Return the ids of transcripts; `start`, which the decoder is given first, is no part of them."""
        if self.way == CTC:
            return [self._letters(text) for text in texts]
        found = [np.asarray(ids, np.int32) for ids in self.tokenizer(list(texts)).input_ids]
        return [ids[1:] if len(ids) and ids[0] == start else ids for ids in found]

    def _letters(self, text: str) -> np.ndarray:
        """Return a text's ids in the case that the vocabulary has; letters it lacks become its unknown token."""
        known = self.tokenizer.get_vocab()
        letters = [letter for letter in known if len(letter) == 1 and letter.isalpha()]
        spaced = " ".join(text.split())
        if letters and not any(letter.islower() for letter in letters):
            spaced = spaced.upper()
        elif letters and not any(letter.isupper() for letter in letters):
            spaced = spaced.lower()
        return np.asarray(self.tokenizer(spaced).input_ids, np.int32)

    @property
    def _unwritten(self) -> list[int]:
        """Return the ids of what is no letter and no mark between words: blank, unknown, beginning and end."""
        known = self.tokenizer
        others = (known.unk_token_id, known.bos_token_id, known.eos_token_id)
        return [self.blank, *(each for each in others if each is not None)]

    def text(self, ids: np.ndarray) -> str:
        """Return the text of written ids (tokens,); for CTC one per frame: repeats and blanks are taken out.

        Graves et al. 2006, section 3.1: the labelling that a path of frames stands for. Tokens that are no letters,
        such as the unknown one that is learnt for characters beyond the vocabulary, are left out.
        """
        ids = ids.astype(np.int64)
        if self.way == CTC:
            ids = ids[np.flatnonzero(np.diff(ids, prepend=-1))]
            letters = ids[~np.isin(ids, self._unwritten)]
            return str(self.tokenizer.decode(letters.tolist(), group_tokens=False)).strip()
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True)).strip()


def characters_of(texts: Sequence[str]) -> str:
    """Return the characters of transcripts, each once, in order; blanks are written as BETWEEN."""
    found = {letter for text in texts for letter in " ".join(text.split())} - {" "}
    if BETWEEN in found:
        raise ConfigError(
            f"The transcripts hold {BETWEEN!r}, which stands for the blank between words in a character vocabulary. "
            "Take it out."
        )
    return "".join(sorted(found))


def character_tokenizer(characters: str) -> Any:
    """Return a tokenizer of single characters, with blank, unknown and the mark between words before them."""
    from transformers import Wav2Vec2CTCTokenizer

    names = [BLANK, UNKNOWN, BETWEEN, *characters]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps({name: i for i, name in enumerate(names)}, ensure_ascii=False), "utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file),
            unk_token=UNKNOWN,
            pad_token=BLANK,
            word_delimiter_token=BETWEEN,
            bos_token=None,
            eos_token=None,
        )


def check_letters(labels: RaggedStore, writer: Transcriber, name: str) -> None:
    """Raise DataError where most letters of the transcripts are none of the vocabulary of the model `name`."""
    unknown = writer.tokenizer.unk_token_id
    if writer.way != CTC or unknown is None:
        return
    share = sum(int((labels[row] == unknown).sum()) for row in range(len(labels))) / max(
        labels.lengths.sum(), 1
    )
    if share > MOST_UNKNOWN:
        raise DataError(
            f"{share:.0%} of the letters of the transcripts are not in the vocabulary of {name}. Take a backbone for "
            "their language, or one that was not trained to write yet: it learns the letters of the transcripts."
        )


def check_room(frames: np.ndarray, labels: RaggedStore, most: int | None, rows: np.ndarray) -> None:
    """Raise DataError for transcripts that their sounds' frames, (n,), or a decoder of `most` tokens cannot hold.

    `rows`: (n,) 1-based row numbers, for the message.
    """
    if most is not None:
        wrong, why = labels.lengths > most, f"longer than the {most} tokens that the decoder writes"
    else:
        repeats = np.array(
            [int((np.diff(labels[row]) == 0).sum()) for row in range(len(labels))], dtype=np.int64
        )
        wrong = labels.lengths + repeats > frames  # a blank must part equal letters
        why = "too long for how short their sounds are: CTC writes at most one letter per frame"
    if wrong.any():
        found = np.flatnonzero(wrong)
        raise DataError(
            f"{len(found)} of {len(labels):,} transcripts are {why} ({row_list((rows[found] - 1).tolist())}). Check "
            "that these belong to their sounds, cut the sounds up, or remove the rows."
        )
