"""Encoder-decoders behind the Backbone's face: Marian, T5, BART, Pegasus, mBART, NLLB …"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones.layers import LayerMap, longest_list, map_layers
from foretune.backbones.split import TOLERANCE, evaluating
from foretune.backbones.text import TextBackbone
from foretune.backbones.tokenize import CHUNK, cut
from foretune.backbones.writing import NO_PROBE, Generation, configure, pass_tokens, write
from foretune.data import store as stores
from foretune.data.paired_store import IGNORED, PairedStore
from foretune.data.store import CutReport, RaggedStore, Store
from foretune.errors import ConfigError

SNIPPET = """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSeq2SeqLM.from_pretrained(".")
batch = tokenizer(["your text"], return_tensors="pt")
written = model.generate(**batch, max_new_tokens=128)
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""
LONGEST_WRITTEN = 1024  # tokens, where the model states no limit


class Seq2SeqBackbone(TextBackbone):
    """A Hugging Face encoder-decoder. Batches hold `labels` (batch, tokens) where targets are known.

    The decoder reads the labels shifted by the model's own rule. Outputs are logits (batch, target tokens,
    vocabulary).
    """

    new_head = False
    snippet = SNIPPET
    _beams = 1
    _points: tuple[int, ...] | None = None

    @property
    def layers(self) -> LayerMap:
        """Return the layers of the encoder, then those of the decoder; embeddings have depth 0."""
        if self._layers is None:
            self._layers = map_both(self.model)
        return self._layers

    def set_languages(self, source: str | None, target: str | None) -> None:
        """Tell a multilingual tokenizer its languages. Raises ConfigError where they lack or are unknown."""
        tokenizer = self.tokenizer
        if not (hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")):
            if source or target:
                raise ConfigError(
                    f"{self.name} knows no language codes; leave source_language and target_language out. Models "
                    "that read the language from the text take --option prefix=…"
                )
            return
        codes = language_codes(tokenizer)
        for option, code in (("source_language", source), ("target_language", target)):
            if code not in codes:
                found = "is missing" if not code else f"{code!r} is unknown to {self.name}"
                raise ConfigError(
                    f"Option {option} {found}: this model reads and writes many languages. "
                    f"Give one of {', '.join(sorted(codes)[:12])} … as --option {option}=CODE."
                )
        tokenizer.src_lang, tokenizer.tgt_lang = source, target
        self.__dict__.pop("target_form", None)

    def encode_targets(self, texts: Sequence[str], max_length: int) -> RaggedStore:
        """Return the token ids of targets, special tokens included, at most `max_length` each."""
        before, after = self.target_form
        room = max(max_length - len(before) - len(after), 1)
        arrays: list[np.ndarray] = []
        tokens = cut_examples = cut_tokens = unknown = 0
        for start in range(0, len(texts), CHUNK):
            for ids in self._target_ids(list(texts[start : start + CHUNK])):
                tokens += len(ids) + len(before) + len(after)
                unknown += int(np.count_nonzero(ids == self.tokenizer.unk_token_id))
                if len(ids) > room:
                    cut_examples, cut_tokens = cut_examples + 1, cut_tokens + len(ids) - room
                    ids = cut(ids, room, "head")
                arrays.append(np.concatenate([before, ids, after]))
        return stores.build(arrays, CutReport(len(texts), tokens, cut_examples, cut_tokens, unknown))

    def _target_ids(self, texts: list[str], special: bool = False) -> list[np.ndarray]:
        encoded = self.tokenizer(text_target=texts, add_special_tokens=special, verbose=False)
        return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    @cached_property
    def target_form(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the special ids before and after a target, found by encoding one."""
        plain, full = self._target_ids(["a"])[0].tolist(), self._target_ids(["a"], special=True)[0].tolist()
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                after = full[start + len(plain) :]
                return np.asarray(full[:start], np.int32), np.asarray(after, np.int32)
        raise ConfigError(f"{self.name} writes no end behind a target. Choose another encoder-decoder.")

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return input_ids, attention_mask and, where targets are known, decoder_input_ids and labels."""
        if not isinstance(store, PairedStore):
            return super().collate(store, rows)
        batch = super().collate(store.source, rows)
        labels = torch.from_numpy(store.target.padded(rows, IGNORED)[0])
        return batch | {"decoder_input_ids": self._shifted(labels), "labels": labels}

    def _shifted(self, labels: Tensor) -> Tensor:
        """Return what the decoder reads, (batch, tokens): the labels shifted by the model's own rule."""
        return self.model.prepare_decoder_input_ids_from_labels(labels=labels)

    def _run(self, batch: dict[str, Tensor]) -> Any:
        given = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return self.model(**given, use_cache=False)

    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return one example of `length` tokens, half of them the target's."""
        source, target = super().sample_batch(length - length // 2), super().sample_batch(length // 2)
        return source | {"decoder_input_ids": target["input_ids"]}

    def _sample(self) -> dict[str, Tensor]:
        sample = super()._sample()
        return sample | {"decoder_input_ids": sample["input_ids"]}

    def split_points(self) -> tuple[int, ...]:
        """Return the end of the encoder, tried on two short inputs: its states are what a frozen one is cached by."""
        if self._points is None:
            point, sample = len(self._sides[0]), self._sample()  # no layers: point 0 is none
            with torch.no_grad(), evaluating(self.model):
                whole = self.forward(sample)
                parts = self.forward_from(point, self.hidden(sample, [point])[0], sample)
            scale = float(whole.abs().max()) or 1.0
            same = point > 0 and float((whole - parts).abs().max()) <= TOLERANCE * scale
            self._points = (point,) if same else ()
        return self._points

    @property
    def _sides(self) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
        """Return the layers of the encoder and those of the decoder."""
        encoder, decoder = (longest_list(part, "")[1] for part in both_sides(self.model))
        return encoder, decoder

    def hidden(self, batch: dict[str, Tensor], points: Sequence[int]) -> list[Tensor]:
        """Return the encoder's output, (batch, source tokens, hidden), the only point there is."""
        given = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        states: Tensor = self.model.get_encoder()(**given).last_hidden_state
        return [states for _ in points]

    def forward_from(self, k: int, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, target tokens, vocabulary), given the encoder's output."""
        from transformers.modeling_outputs import BaseModelOutput

        given = {name: batch[name] for name in ("attention_mask", "decoder_input_ids") if name in batch}
        output = self.model(
            **given, encoder_outputs=BaseModelOutput(last_hidden_state=hidden), use_cache=False
        )
        logits: Tensor = output.logits
        return logits.float()

    def train_above(self, k: int) -> None:
        """Put the model into training mode; the encoder, where it is frozen, into evaluation mode."""
        self.model.train()
        if k:
            both_sides(self.model)[0].eval()

    def layers_changed(self) -> None:
        """Look at the layers anew: a strategy has changed the modules."""
        super().layers_changed()
        self._points = None

    def configure(self, generation: Generation) -> None:
        """Settle how the model writes; the decoder begins as the labels in training do."""
        before, after = self.target_form
        labels = torch.tensor([[*before.tolist(), 1, *after.tolist()]])
        start = int(self._shifted(labels)[0, 0])
        forced = int(before[0]) if len(before) else None
        own = {"decoder_start_token_id": start, "forced_bos_token_id": forced, "pad_token_id": self.padding}
        configure(self.model, generation, **own)
        self._beams = generation.beams

    @property
    def pass_limit(self) -> int:  # type: ignore[override]
        """Return what the lengths of one pass without gradients add up to at most."""
        return pass_tokens(self.model, self._beams)

    def write(self, batch: dict[str, Tensor], limit: int, seed: int = 0) -> Tensor:
        """Return what the model writes for a batch of sources: ids (batch, at most `limit`), padded."""
        wanted = ("input_ids", "attention_mask")
        inputs: dict[str, Tensor] = {name: batch[name] for name in wanted if name in batch}
        if "attention_mask" not in inputs:  # else the padding's id would be masked wherever it stands
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return write(self.model, inputs, min(limit, self.longest_written), seed)[:, 1:]

    @property
    def longest_written(self) -> int:
        """Return how many tokens the decoder can write."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or LONGEST_WRITTEN) - 1

    def train_seen_embeddings(self, store: Store) -> None:
        """Do nothing: the table is the output layer too, which reads every row of it."""

    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Add nothing: what is written has to come from the vocabulary that was pretrained."""
        return 0

    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Raise ConfigError: there is no head that could be trained alone."""
        raise ConfigError(NO_PROBE.format(name=self.name))


def language_codes(tokenizer: Any) -> set[str]:
    """Return the languages that a multilingual tokenizer knows, as its `src_lang` takes them."""
    for name in ("lang_code_to_id", "lang_code_to_token"):
        known = getattr(tokenizer, name, None)
        if isinstance(known, dict) and known:
            return set(known)
    listed = {str(token).strip("_") if str(token).startswith("__") else str(token)
              for token in tokenizer.all_special_tokens}  # fmt: skip
    return {token for token in listed if token[:1].isalpha() and token[0].islower()}


def both_sides(model: Any) -> tuple[nn.Module, nn.Module]:
    """Return encoder and decoder."""
    return model.get_encoder(), model.get_decoder()


def map_both(model: nn.Module) -> LayerMap:
    """Return the layer map of an encoder-decoder: depths 1 … n of the encoder, n + 1 … n + m of the decoder."""
    names = {id(module): name for name, module in model.named_modules()}
    sides = [(names[id(part)], part) for part in both_sides(model)]
    lists = [longest_list(part, name) for name, part in sides]
    if not all(layers for _, layers in lists):
        return map_layers(model)
    first, second = len(lists[0][1]), len(lists[1][1])
    depth: dict[str, int] = {}
    for name, _ in model.named_parameters():
        depth[name] = first + second + 1
        for (side, _), (path, layers), base in zip(sides, lists, (0, first), strict=True):
            if name.startswith(f"{path}."):
                depth[name] = base + int(name[len(path) + 1 :].split(".")[0]) + 1
            elif name.startswith(f"{side}."):
                table = "embed" in name or "relative_attention_bias" in name
                depth[name] = 0 if table else base + len(layers)  # final norms rank with the top layer
    shared = model.get_input_embeddings().weight  # type: ignore[operator]
    for name, parameter in model.named_parameters():
        if parameter is shared:
            depth[name] = 0
    return LayerMap("", (*lists[0][1], *lists[1][1]), depth)
