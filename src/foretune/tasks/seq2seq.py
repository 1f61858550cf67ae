"""Summarisation and translation: an encoder-decoder reads a source and writes a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from foretune.backbones.writing import Generation
from foretune.data.columns import Columns
from foretune.errors import ConfigError
from foretune.evaluation.generation import GENERATION_METRICS, TextScores
from foretune.evaluation.perplexity import PERPLEXITY_METRICS
from foretune.evaluation.text_baselines import lead, nearest, score_texts
from foretune.evaluation.written import LossScores, WorstWritten, WrittenScores, written_sections
from foretune.tasks.base import TASKS, Encoded, Examples, Task
from foretune.tasks.sequence_tables import audit_pairs, learnt, read_targets, read_texts

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.backbones.seq2seq import Seq2SeqBackbone
    from foretune.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Seq2SeqOptions(Generation):
    """How sources are given and targets written.

    `prefix` stands before every source (T5's "translate English to German: "). `source_language` and
    `target_language` are codes of multilingual models. `max_target_tokens`: longer training targets are cut;
    0 for the sources' limit. `label_smoothing` of the training loss. `references`: the column of lists of texts of
    which any is right, for the scores; "none" for the target alone; by default one whose lists hold the target.
    """

    prefix: str = ""
    source_language: str = ""
    target_language: str = ""
    max_target_tokens: int = 0
    label_smoothing: float = 0.0
    references: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prefix", "source_language", "target_language", "references"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"Option {name} is {getattr(self, name)!r}; expected text.")
        if not isinstance(self.max_target_tokens, int) or self.max_target_tokens < 0:
            raise ConfigError(
                f"Option max_target_tokens is {self.max_target_tokens!r}; expected a whole number of 0 or more."
            )
        if not isinstance(self.label_smoothing, int | float) or not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"Option label_smoothing is {self.label_smoothing!r}; expected 0 or more, below 1."
            )


class Seq2Seq(Task):
    """Summed cross-entropy of the target's tokens, given those before them (teacher forcing).

    A target is a text, or a list of references of which the first is learnt and all count in the scores.

    During training the dev set's perplexity is watched, as writing is slow; the final scores are of texts
    that were written by beam search or sampling.
    """

    auto_class = "AutoModelForSeq2SeqLM"
    headline = "text"
    pools = False
    scores_untuned = True
    Options = Seq2SeqOptions
    written: ClassVar[tuple[str, ...]]  # metrics of what is written
    sentence_metric: ClassVar[str]  # by which single texts are told good or bad

    def __init__(self, columns: Columns, options: Seq2SeqOptions, seed: int = 0) -> None:
        self.columns, self.options, self.seed = columns, options, seed

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> Seq2Seq:
        """Take the options; there is nothing to learn from the table."""
        TextScores(cls.written)  # says what is missing before hours of training, not after them
        return cls(columns, cls.options_of(recipe), recipe.seed)

    def state(self) -> dict[str, Any]:
        """Return columns, options and seed."""
        columns = {"text": self.columns.text, "target": self.columns.target}
        return {"columns": columns, "options": asdict(self.options), "seed": self.seed}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Seq2Seq:
        """Make the task of a saved model."""
        columns = Columns(state["columns"]["text"], state["columns"]["target"], "as saved with the model")
        return cls(columns, cls.Options(**state["options"]), state["seed"])

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about repeated and copied rows. Raises DataError for blank cells."""
        return audit_pairs(table, columns, where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read sources and, where needed, targets."""
        targets = None
        if need_targets:
            assert self.columns.target is not None
            targets = read_targets(table, self.columns.target, self.options.references, where)
        sources = read_texts(table, self.columns.text, where)
        return Examples(sources, targets, np.arange(1, len(table) + 1))

    def strata(self, examples: Examples) -> None:
        """Return none: texts have no classes."""
        return None

    def encode(
        self,
        backbone: Backbone,
        examples: Examples,
        *,
        max_length: int,
        truncation: str,
        training: bool = False,
        seed: int = 0,
    ) -> Encoded:
        """Return sources and targets as token ids; the targets are the labels."""
        from foretune.data.paired_store import LabelRows, PairedStore

        model = cast("Seq2SeqBackbone", backbone)
        model.set_languages(self.options.source_language or None, self.options.target_language or None)
        model.configure(self.options)
        sources = [self.options.prefix + source for source in examples.inputs]
        store = model.preprocess(sources, max_length=max_length, truncation=truncation)
        if examples.targets is None:
            return Encoded(store, info=model.tokenizer)
        longest = min(self.options.max_target_tokens or max_length, model.longest_written)
        targets = model.encode_targets(learnt(examples.targets), longest)
        return Encoded(PairedStore(store, targets), LabelRows(targets), info=model.tokenizer)

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the pretrained model is as it has to be."""
        return {}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of target tokens."""
        return float((targets >= 0).sum())

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of logits (batch, tokens, vocabulary)."""
        from foretune.backbones.writing import smoothed_loss

        return smoothed_loss(outputs, targets, self.options.label_smoothing)

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed loss and the number of target tokens of every row: (batch, 2)."""
        from foretune.backbones.writing import summed_losses

        assert batch is not None
        return summed_losses(outputs, batch["labels"])

    def infer(self, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
        """Return (batch, 2 + tokens): what `activate` gives, 0 without targets, then the ids written."""
        import torch

        model = cast("Seq2SeqBackbone", backbone)
        written = model.write(batch, self.limit(batch["input_ids"].shape[1]), self.seed)
        scored = torch.zeros(len(written), 2, device=written.device)
        if "labels" in batch:
            scored = self.activate(model.forward(batch), batch)
        return torch.cat([scored, written.float()], dim=1)  # exact: ids are far below 2^24

    def limit(self, source_tokens: int) -> int:
        """Return how many tokens may be written for sources of so many tokens."""
        raise NotImplementedError

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the text written for every source."""
        return [{"text": text} for row in outputs for text in decoder(encoded)(row[None, 2:])]

    def scores(self, examples: Examples, encoded: Encoded) -> WrittenScores:
        """Return an empty accumulator of the metrics of what is written, and of perplexity."""
        assert examples.targets is not None
        return WrittenScores(TextScores(self.written), examples.targets.tolist(), decoder(encoded))

    def progress(self, examples: Examples, encoded: Encoded) -> LossScores:
        """Return an empty accumulator of perplexity."""
        return LossScores()

    def watched(self, metric: str) -> str:
        """Return perplexity: nothing is written during training."""
        return metric if metric in PERPLEXITY_METRICS else "perplexity"

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstWritten | None:
        """Return a keeper of the texts least like their references."""
        if k == 0 or examples.targets is None:
            return None
        references = examples.targets.tolist()
        return WorstWritten(
            k, self.sentence_metric, examples.inputs, references, decoder(encoded), examples.rows
        )

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return tables of what was written beside the references."""
        return written_sections(worst, self.sentence_metric)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of trivial writers on the held-out examples."""
        assert train.targets is not None and held_out.targets is not None
        similar = nearest(train.inputs, held_out.inputs, seed)
        known = learnt(train.targets)
        writers = self.trivial(held_out.inputs) | {"nearest": [known[row] for row in similar]}
        return {
            name: score_texts(texts, held_out.targets.tolist(), self.written, seed)
            for name, texts in writers.items()
        }

    def trivial(self, sources: Sequence[str]) -> dict[str, list[str]]:
        """Return what trivial writers make of the sources, by their names."""
        raise NotImplementedError


@TASKS.register("translation")
class Translation(Seq2Seq):
    """BLEU and chrF; copies of the source are a baseline that names and numbers keep from 0."""

    name = "translation"
    written = ("bleu", "chrf")
    metrics = {name: GENERATION_METRICS[name] for name in written} | {"perplexity": False}
    default_metric = "bleu"
    sentence_metric = "chrf"

    def limit(self, source_tokens: int) -> int:
        """Return twice the source's tokens and a few: what goes on for longer repeats itself."""
        return self.options.max_new_tokens or 2 * source_tokens + 16

    def trivial(self, sources: Sequence[str]) -> dict[str, list[str]]:
        """Return copies of the sources."""
        return {"copy": list(sources)}


@TASKS.register("summarisation")
class Summarisation(Seq2Seq):
    """ROUGE; the first sentences are a baseline that is hard to beat on news (Nallapati et al. 2017)."""

    name = "summarisation"
    written = ("rouge1", "rouge2", "rougel")
    metrics = {name: GENERATION_METRICS[name] for name in written} | {"perplexity": False}
    default_metric = "rougel"
    sentence_metric = "rougel"

    def limit(self, source_tokens: int) -> int:
        """Return 128 tokens, some hundred words, unless told otherwise."""
        return self.options.max_new_tokens or 128

    def trivial(self, sources: Sequence[str]) -> dict[str, list[str]]:
        """Return the first sentence and the first three."""
        return {f"lead{number}": [lead(source, number) for source in sources] for number in (1, 3)}


def decoder(encoded: Encoded) -> Any:
    """Return the function from ids (batch, tokens), of any number type, to texts."""
    tokenizer = encoded.info

    def texts(ids: np.ndarray) -> list[str]:
        return list(tokenizer.batch_decode(ids.astype(np.int64), skip_special_tokens=True))

    return texts
