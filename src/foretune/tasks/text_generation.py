"""Text generation: a causal language model learns running text, separate texts, or responses to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from foretune.backbones.writing import Generation
from foretune.data.columns import Columns
from foretune.data.sequences import documents
from foretune.data.text import is_blank
from foretune.data.windows import LABELS, TokenSequence, cut_windows, pieces
from foretune.errors import ConfigError
from foretune.evaluation.ngram import KneserNey
from foretune.evaluation.perplexity import PERPLEXITY_METRICS, PerplexityScores
from foretune.evaluation.written import LossScores, WorstLosses, loss_sections
from foretune.tasks.base import TASKS, Encoded, Examples, Task
from foretune.tasks.prompts import Prompts
from foretune.tasks.sequence_tables import audit_pairs, read_texts

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.backbones.causal import CausalBackbone
    from foretune.data.store import RaggedStore
    from foretune.recipe import Recipe

WRITTEN = 64  # tokens, unless told otherwise
SAMPLES, SAMPLE_TOKENS, SAMPLE_WORDS = 2, 32, 8  # texts shown during training, and the words they begin with
DRAWN_SHARE = 0.95  # of the probability, from whose tokens is drawn
DRAWN = {
    "do_sample": True,
    "num_beams": 1,
    "temperature": 0.8,
    "top_p": DRAWN_SHARE,
    "top_k": 0,
}  # of samples
BLOCK = 256  # tokens of a text that an n-gram baseline's interval resamples at a time
BASELINE_TOKENS = 2_000_000  # of the training data that n-grams are counted in


@dataclass(frozen=True, kw_only=True)
class TextGenerationOptions(Generation):
    """How texts are written; drawn at random by default, but for `temperature` 0.

    `chat`: prompts stand in the tokenizer's chat template.
    """

    num_beams: int = 1
    temperature: float = 0.8
    top_p: float = DRAWN_SHARE
    chat: bool = False

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.top_p == DRAWN_SHARE:
            object.__setattr__(self, "top_p", 1.0)  # the default goes with drawing, which was switched off
        super().__post_init__()
        if not isinstance(self.chat, bool):
            raise ConfigError(f"Option chat is {self.chat!r}; expected true or false.")


@TASKS.register("text-generation")
class TextGeneration(Task):
    """Summed cross-entropy of the next token: of every token of a text, of prompts' responses alone.

    `running`: the examples are the parts of one text, in order.
    """

    name = "text-generation"
    auto_class = "AutoModelForCausalLM"
    metrics = PERPLEXITY_METRICS
    default_metric = "perplexity"
    headline = "text"
    pipeline = "text-generation"
    pools = False
    scores_untuned = True
    Options = TextGenerationOptions

    def __init__(
        self, columns: Columns, options: TextGenerationOptions, running: bool = False, seed: int = 0
    ) -> None:
        self.columns, self.options, self.running, self.seed = columns, options, running, seed
        self._tokenizer: Any = None  # the last backbone's: the n-gram baselines count the same tokens

    @classmethod
    def from_table(cls, table: pd.DataFrame, columns: Columns, recipe: Recipe) -> TextGeneration:
        """Look whether the table is one running text. Raises ConfigError for beams where texts are drawn at random."""
        running = columns.target is None and table.attrs.get("format") == "txt"
        options = cls.options_of(recipe)
        if options.num_beams > options.beams:
            raise ConfigError(
                f"Option num_beams is {options.num_beams}, but texts are drawn at random (temperature "
                f"{options.temperature:g}), which knows no beams. Set temperature=0 too, or leave num_beams out."
            )
        return cls(columns, options, running, recipe.seed)

    def state(self) -> dict[str, Any]:
        """Return columns, options and form."""
        columns = {"text": self.columns.text, "second": self.columns.second, "target": self.columns.target}
        return {
            "columns": columns, "options": asdict(self.options), "running": self.running, "seed": self.seed
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TextGeneration:
        """Make the task of a saved model."""
        own = state["columns"]
        columns = Columns(own["text"], own["target"], "as saved with the model", second=own["second"])
        return cls(columns, cls.Options(**state["options"]), state["running"], state["seed"])

    @classmethod
    def audit(cls, table: pd.DataFrame, columns: Columns, *, where: str) -> list[str]:
        """Return warnings about repeated rows. Raises DataError for blank ones (lines of plain text may be)."""
        if columns.target is None and table.attrs.get("format") == "txt":
            documents(table, columns.text, where)
            return []
        return audit_pairs(table, columns, where)

    def examples(self, table: pd.DataFrame, *, where: str, need_targets: bool = True) -> Examples:
        """Read texts, or prompts and responses; without targets, prompts to go on with."""
        second = self.columns.second
        if self.columns.target is None and need_targets:
            texts = documents(table, self.columns.text, where)
            texts = pieces("\n".join(texts)) if self.running else texts  # rows of a table are its lines
            # The texts are their own targets; what is read stands in `inputs`.
            return Examples(texts, np.array(texts, dtype=object), np.arange(1, len(texts) + 1))
        prompts = read_texts(table, self.columns.text, where)
        if second is not None and second in table:
            more = table[second].tolist()
            prompts = [p if is_blank(m) else f"{p}\n{m}" for p, m in zip(prompts, more, strict=True)]
        targets = None
        if need_targets:
            assert self.columns.target is not None
            targets = np.array(read_texts(table, self.columns.target, where), dtype=object)
        return Examples(prompts, targets, np.arange(1, len(prompts) + 1))

    def in_order(self, examples: Examples) -> bool:
        """Return whether the examples are one running text."""
        return self.running

    def strata(self, examples: Examples) -> None:
        """Return none: texts have no classes."""
        return None

    @classmethod
    def overlap(cls, train: pd.DataFrame, other: pd.DataFrame, columns: Columns, where: str) -> list[str]:
        """Return warnings about texts of `train` that stand in `other`; lines of running texts may recur."""
        if columns.target is None and train.attrs.get("format") == "txt":
            return []
        return super().overlap(train, other, columns, where)

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
        """Return texts in windows with labels, or prompts where there are no targets."""
        from foretune.data.paired_store import LabelRows

        model = cast("CausalBackbone", backbone)
        model.configure(self.options)
        self._tokenizer = model.tokenizer
        form = self._form()
        if examples.targets is None:
            prompts = form.prompts(examples.inputs, model.room(self.limit))
            return Encoded(prompts, info=(model.tokenizer, None))
        model.check_length(max_length)
        windows = cut_windows(self._sequences(examples), max_length)
        owner = self._owners(windows.owner, windows.store, examples)
        labels = LabelRows(windows.store, LABELS)
        return Encoded(windows.store, labels, owner, info=(model.tokenizer, windows.sizes))

    def _form(self) -> Prompts:
        chat = self.options.chat and self.columns.target is not None
        return Prompts(self._tokenizer, responds=self.columns.target is not None, chat=chat)

    def _sequences(self, examples: Examples) -> list[TokenSequence]:
        """Return the examples as whole sequences; one where they are the parts of one text."""
        assert examples.targets is not None
        targets = examples.targets.tolist()
        if self.columns.target is not None:
            return self._form().responses(examples.inputs, targets)
        return self._form().texts(["".join(targets)] if self.running else targets, ends=not self.running)

    def _owners(self, owner: np.ndarray, store: RaggedStore, examples: Examples) -> np.ndarray:
        """Return the example of every window; of one running text about the part that it begins in."""
        if not self.running:
            return owner
        starts = np.concatenate([[0], np.cumsum(store.lengths)[:-1]]) / max(int(store.lengths.sum()), 1)
        ends = np.cumsum([len(text) for text in examples.inputs])
        return np.searchsorted(ends, starts * ends[-1], side="right")

    @property
    def limit(self) -> int:
        """Return how many tokens may be written."""
        return self.options.max_new_tokens or WRITTEN

    def model_options(self) -> dict[str, Any]:
        """Return nothing: the pretrained model is as it has to be."""
        return {}

    def normaliser(self, targets: np.ndarray) -> float:
        """Return the number of tokens that are predicted."""
        return float(max((targets >= 0).sum(), 1))

    def loss(self, outputs: Tensor, targets: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed cross-entropy of logits (batch, tokens, vocabulary)."""
        from foretune.backbones.writing import smoothed_loss

        return smoothed_loss(outputs, targets)

    def activate(self, outputs: Tensor, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Return the summed loss and the number of predicted tokens of every row: (batch, 2)."""
        from foretune.backbones.writing import summed_losses

        assert batch is not None
        return summed_losses(outputs, batch[LABELS])

    def infer(self, backbone: Backbone, batch: dict[str, Tensor]) -> Tensor:
        """Return what `activate` gives, or for prompts the ids written: (batch, tokens)."""
        if LABELS in batch:
            return self.activate(backbone.forward(batch), batch)
        return cast("CausalBackbone", backbone).write(batch, self.limit, self.seed).float()

    def decode(
        self, outputs: Sequence[np.ndarray], examples: Examples, encoded: Encoded
    ) -> list[dict[str, Any]]:
        """Return the text written after every prompt."""
        texts = encoded.info[0].batch_decode(
            [row.astype(np.int64) for row in outputs], skip_special_tokens=True
        )
        return [{"text": text} for text in texts]

    def scores(self, examples: Examples, encoded: Encoded) -> LossScores:
        """Return an empty accumulator of perplexity and bits per byte."""
        return LossScores(encoded.info[1])

    def samples(self, backbone: Backbone, examples: Examples, encoded: Encoded) -> list[dict[str, str]]:
        """Return what the model writes now after the first prompts, or the first words of the first texts."""
        import torch

        from foretune.backbones.split import evaluating

        model, form = cast("CausalBackbone", backbone), self._form()
        first = [str(text) for text in examples.inputs[:SAMPLES]]
        prompts = first if self.columns.target is not None else [beginning(text) for text in first]
        store = form.prompts(prompts, model.room(SAMPLE_TOKENS))
        device = next(model.model.parameters()).device
        batch = model.collate(store, np.arange(len(prompts)))
        with evaluating(model.model), torch.inference_mode():
            moved = {name: tensor.to(device) for name, tensor in batch.items()}
            ids = model.write(moved, SAMPLE_TOKENS, self.seed, **DRAWN)
        texts = model.tokenizer.batch_decode(ids.tolist(), skip_special_tokens=True)
        return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]

    def worst(self, examples: Examples, encoded: Encoded, k: int) -> WorstLosses | None:
        """Return a keeper of the rows that surprise the model most."""
        return WorstLosses(k, encoded, examples) if k else None

    def sections(self, result: dict[str, Any], worst: list[dict[str, Any]]) -> list[str]:
        """Return a table of the rows that surprise the model most."""
        return loss_sections(worst)

    def baselines(self, train: Examples, held_out: Examples, seed: int) -> dict[str, Any]:
        """Return the scores of n-gram models of the same tokens."""
        known, other = self._sequences(train), self._sequences(held_out)
        counted = np.concatenate([each.ids for each in known])[:BASELINE_TOKENS]
        found = {}
        for name, order in (("unigram", 1), ("kneser_ney", 3)):
            model, scores = KneserNey(counted, len(self._tokenizer), order), PerplexityScores()
            for each in other:
                scores.update(*in_blocks(model.losses(each.ids)[each.first :], each.size))
            result = scores.result(seed)
            found[name] = {metric: result[metric] for metric in self.metrics}
        return found


def in_blocks(losses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums, counts and bytes of blocks of losses: a long text has an interval as its windows have."""
    starts = np.arange(0, len(losses), BLOCK)
    sums = np.add.reduceat(losses, starts) if len(losses) else np.zeros(0)
    counts = np.diff([*starts, len(losses)])
    return sums, counts, size * counts / max(len(losses), 1)


def beginning(text: str) -> str:
    """Return the first words of a text, or its first characters where no blanks part words."""
    words = text.split(maxsplit=SAMPLE_WORDS)
    short = " ".join(words[:SAMPLE_WORDS])
    return short if len(short) <= 12 * SAMPLE_WORDS else text[: 2 * SAMPLE_WORDS]
