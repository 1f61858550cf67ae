"""The names a user can give as --backbone, and what is known of each before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A catalogue line: where a backbone comes from and what it is good for."""

    name: str
    source: str  # "bundled" or a hub id
    languages: str
    layers: int
    width: int  # hidden size
    parameters: float  # millions
    about: str


# Sizes as the models' configurations and cards state them.
CATALOGUE: tuple[Entry, ...] = (
    Entry(
        "minilm-l6", "bundled", "en", 6, 384, 22.7, "all-MiniLM-L6-v2; the default, comes with the install"
    ),
    Entry("minilm-l12", "sentence-transformers/all-MiniLM-L12-v2", "en", 12, 384, 33.4, "twice as deep"),
    Entry("bge-small-en", "BAAI/bge-small-en-v1.5", "en", 12, 384, 33.4, "strong small encoder"),
    Entry("mpnet-base", "sentence-transformers/all-mpnet-base-v2", "en", 12, 768, 109.5, "base size"),
    Entry(
        "modernbert-base", "answerdotai/ModernBERT-base", "en", 22, 768, 149.0, "texts of up to 8,192 tokens"
    ),
    Entry("bert-base", "google-bert/bert-base-uncased", "en", 12, 768, 109.5, "the classic"),
    Entry("deberta-v3-base", "microsoft/deberta-v3-base", "en", 12, 768, 184.0, "accurate, slower"),
    Entry("bge-small-zh", "BAAI/bge-small-zh-v1.5", "zh", 4, 512, 24.0, "small Chinese encoder"),
    Entry("bert-base-zh", "google-bert/bert-base-chinese", "zh", 12, 768, 102.3, "the classic, Chinese"),
    Entry("macbert-base-zh", "hfl/chinese-macbert-base", "zh", 12, 768, 102.3, "strong Chinese base"),
    Entry("xlm-roberta-base", "FacebookAI/xlm-roberta-base", "100 languages", 12, 768, 278.0, "multilingual"),
    Entry(
        "multilingual-minilm",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "50 languages",
        12,
        384,
        117.7,
        "small multilingual",
    ),
)


def find(name: str) -> Entry | None:
    """Return the catalogue's entry of that name, or None."""
    return next((entry for entry in CATALOGUE if entry.name == name), None)
