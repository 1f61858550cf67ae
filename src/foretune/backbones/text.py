"""Hugging Face encoders and decoders of text, with a head for classification."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones import pooling, vocabulary
from foretune.backbones.base import Backbone
from foretune.backbones.embedding import SeenRowsEmbedding
from foretune.backbones.layers import HEAD_NAMES, LayerMap, map_layers
from foretune.backbones.source import Source, hub_closed, resolve
from foretune.backbones.split import Layers, Slot, evaluating
from foretune.backbones.tokenize import tokenize
from foretune.data.store import RaggedStore, Store
from foretune.errors import BackboneError, ConfigError

LONGEST = 8192  # where the model states no limit (tokens)


class TextBackbone(Backbone):
    """A Hugging Face text model behind the Backbone's face."""

    model: Any  # transformers' classes are built at run time; the type checker sees too little of them

    def __init__(self, name: str, model: Any, tokenizer: Any, source: Source) -> None:
        self.name, self.model, self.tokenizer, self.source = name, model, tokenizer, source
        self.padding = tokenizer.pad_token_id
        self._layers: LayerMap | None = None
        self._first_new: int | None = None
        self._pooling: pooling.MeanPooling | None = None
        self._split: tuple[Layers, tuple[int, ...]] | None = None
        self._added = ""  # what `learn_vocabulary` added: it decides the new rows of the table
        self._linear = False  # whether `linear_head` left a linear map on fixed features

    @property
    def layers(self) -> LayerMap:
        """Return the layers in order and the depth of every parameter."""
        if self._layers is None:
            self._layers = map_layers(self.model)
        return self._layers

    def layers_changed(self) -> None:
        """Look at the layers anew: a strategy has changed the modules."""
        self._layers, self._split = None, None

    @property
    def max_length(self) -> int:
        """Return the longest input of model and tokenizer (tokens)."""
        stated = getattr(self.model.config, "max_position_embeddings", None) or LONGEST
        return int(min(stated, self._positions(), self.tokenizer.model_max_length, LONGEST))

    def _positions(self) -> int:
        """Return how many positions the model's table holds; those of RoBERTa-like models start behind the padding's.

        Found by the name of the table, as some models have their own class for it.
        """
        for name, module in self.model.named_modules():
            padding = getattr(module, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None and hasattr(module, "weight"):
                return int(module.weight.shape[0]) - padding - 1
        return LONGEST

    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> RaggedStore:
        """Tokenise texts, or pairs of texts. Raises ConfigError where `max_length` is more than the model takes."""
        self.check_length(max_length)
        store = tokenize(self.tokenizer, inputs, max_length=max_length, truncation=truncation)
        two_types = getattr(self.model.config, "type_vocab_size", 0) > 1
        return store if two_types or not store.extras else replace(store, extras={})

    def check_length(self, max_length: int) -> None:
        """Raise ConfigError where `max_length` is more than the model takes."""
        if max_length > self.max_length:
            raise ConfigError(
                f"max_tokens is {max_length}, but {self.name} takes at most {self.max_length} tokens. "
                f"Set it to {self.max_length} or less, or choose a backbone for longer texts."
            )

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return input_ids and, where something is padded, attention_mask: (batch, tokens)."""
        assert isinstance(store, RaggedStore)
        ids, mask = store.padded(rows, self.padding)
        batch = {"input_ids": torch.from_numpy(ids)}
        if not mask.all():
            batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        for name in store.extras:
            batch[name] = torch.from_numpy(store.padded(rows, 0, name)[0])
        return batch

    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return one example of `length` tokens."""
        device = next(self.model.parameters()).device
        return {"input_ids": torch.ones(1, length, dtype=torch.int64, device=device)}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the head's outputs in float32: logits (batch, classes), or (batch, tokens, …) of every token.

        For question answering (batch, tokens, 2): the logits of an answer's start and end.
        """
        output = self._run(batch)
        if "start_logits" in output:
            return torch.stack([output.start_logits, output.end_logits], dim=-1).float()
        return output.logits.float()

    def _run(self, batch: dict[str, Tensor]) -> Any:
        """Return the model's output for a batch."""
        return self.model(**batch)

    @property
    def linear(self) -> bool:
        """Return whether `linear_head` left a linear map of one vector per example, tried on two inputs."""
        with torch.no_grad(), evaluating(self.model):
            return self._linear and self.features(self._sample()) is not None

    def split_points(self) -> tuple[int, ...]:
        """Return every k behind which the model can be split, tried on two short inputs of unequal length."""
        return self._splitting()[1]

    def _splitting(self) -> tuple[Layers, tuple[int, ...]]:
        """Return the layers and the split points; found once, and again when layers were added."""
        parent = self.model.get_submodule(self.layers.path) if self.layers.path else None
        layers = Layers(tuple(Slot(parent, name) for name in parent._modules) if parent is not None else ())
        if self._split is None or self._split[0].count != layers.count:
            with evaluating(self.model):
                self._split = (layers, layers.points(lambda: self.forward(self._sample())))
        return self._split

    def _base(self) -> nn.Module:
        """Return the model without its head."""
        prefix = getattr(self.model, "base_model_prefix", "")
        return getattr(self.model, prefix, self.model) if prefix else self.model

    def _sample(self) -> dict[str, Tensor]:
        """Return two short inputs of unequal length."""
        device = next(self.model.parameters()).device
        ids = torch.arange(10, 22, device=device).reshape(2, 6) % self.model.config.vocab_size
        mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], device=device)
        return {"input_ids": torch.where(mask.bool(), ids, self.padding), "attention_mask": mask}

    def hidden(self, batch: dict[str, Tensor], points: Sequence[int]) -> list[Tensor]:
        """Return the output of the first k layers, (batch, tokens, hidden), for every k of `points`."""
        return self._splitting()[0].read(lambda: self._run(batch), points)

    def forward_from(self, k: int, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (batch, classes), given the output of the first k layers."""
        with self._splitting()[0].starting_at(k, hidden):
            return self.forward(batch)

    def layer_means(self, batch: dict[str, Tensor]) -> Tensor:
        """Return every layer's mean over the real tokens: (batch, n + 1, hidden), embeddings first."""
        points = range(self._splitting()[0].count + 1)
        stacked = torch.stack(self.hidden(batch, list(points)), dim=1)  # (batch, n + 1, tokens, hidden)
        mask = batch.get("attention_mask")
        if mask is None:
            return stacked.mean(dim=2)
        weights = mask[:, None, :, None].to(stacked.dtype)
        return (stacked * weights).sum(dim=2) / weights.sum(dim=2)

    def train_above(self, k: int) -> None:
        """Put layers from k on and the head into training mode, what is frozen into evaluation mode."""
        self.model.train()
        if k == 0:
            return
        self._base().eval()
        for name, module in self._base().named_modules():
            if name.split(".")[-1] in HEAD_NAMES:
                module.train()
        for slot in self._splitting()[0].slots[k:]:
            slot.module.train()

    def features(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the classifier's input (batch, hidden), or None where it reads every token (decoders)."""
        _, classifier = pooling.head_linears(self.model)
        if classifier is None or not self._linear:
            return None
        seen: list[Tensor] = []
        hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self._run(batch)
        finally:
            hook.remove()
        return seen[0] if seen and seen[0].ndim == 2 else None

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (batch, classes) of the classifier in float32."""
        _, classifier = pooling.head_linears(self.model)
        assert classifier is not None
        return classifier(features).float()

    def train_seen_embeddings(self, store: Store) -> None:
        """Replace the word embedding by one that trains only the rows that `store` uses."""
        table = self.model.get_input_embeddings()
        if (
            type(table) is not nn.Embedding
            or not table.weight.requires_grad
            or not isinstance(store, RaggedStore)
        ):
            return
        seen = np.union1d(store.seen_ids(), [self.padding])
        self._set_embeddings(SeenRowsEmbedding(table, seen, self._first_new))

    @property
    def learnt(self) -> str:
        """Return what `learn_vocabulary` added; empty where it was nothing."""
        return self._added

    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Add the characters of `inputs` that the tokenizer does not know as tokens; return their number."""
        if type(self.model.get_input_embeddings()) is not nn.Embedding:
            return 0
        unknown = vocabulary.unknown_characters(self.tokenizer, inputs)
        if unknown:
            self._first_new = vocabulary.add_tokens(self.tokenizer, self.model, unknown)
            self._layers = None
            self._added = f"{''.join(unknown)} seed {torch.initial_seed()}"
        return len(unknown)

    def fold_embeddings(self) -> None:
        """Put a plain embedding back, with the trained rows in it."""
        table = self.model.get_input_embeddings()
        if isinstance(table, SeenRowsEmbedding):
            self._set_embeddings(table.fold())

    def _set_embeddings(self, module: nn.Module) -> None:
        self.model.set_input_embeddings(module)
        self._layers = None

    def use_mean_pooling(self) -> bool:
        """Append the layer of `pooling`, checked on a few tokens; False where the model has no place for it."""
        if not self.pools:
            return False
        self._pooling = pooling.append_mean_pooling(self.model)
        self._layers = None
        if self._pooling is None:
            return False
        if not self._pools_the_mean():
            raise BackboneError(
                f"{self.name}: the pooling layer does not return the mean of the tokens. "
                "Choose --strategy full for this backbone."
            )
        return True

    @torch.no_grad()
    def _pools_the_mean(self) -> bool:
        """Compare the new layer with the formula on two short inputs of unequal length."""
        self.model.eval()
        batch = self._sample()
        output = self.model(**batch, output_hidden_states=True)
        below, top = output.hidden_states[-2:]
        expected = pooling.normalised_mean(below, batch["attention_mask"])
        return torch.allclose(top[:, 0], expected, atol=2e-2)

    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Return the classifier's parameters; above mean pooling, a dense layer before it becomes a gain.

        Where neither holds (a dense layer of unknown activation), the whole head trains.
        """
        dense, classifier = pooling.head_linears(self.model)
        self._linear = classifier is not None and (dense is None or self._pooling is not None)
        if classifier is None or not self._linear:
            names = self.layers.head()
            return [p for name, p in self.model.named_parameters() if name in names], 1.0
        if dense is not None:
            pooling.straighten(dense)
        return list(classifier.parameters()), 1.0 if dense is None else pooling.GAIN

    @torch.no_grad()
    def scale_outputs(self, scale: float, shift: float) -> bool:
        """Scale the classifier's weights and bias."""
        _, classifier = pooling.head_linears(self.model)
        if classifier is None or classifier.bias is None:
            return False
        classifier.weight.mul_(scale)
        classifier.bias.mul_(scale).add_(shift)
        return True

    @contextmanager
    def exact_head(self) -> Iterator[None]:
        """Let the classifier compute in float32, also under autocast: bf16 keeps three digits of a number."""
        _, classifier = pooling.head_linears(self.model)
        if classifier is None:
            yield
            return
        handle = classifier.register_forward_hook(_in_float32)
        try:
            yield
        finally:
            handle.remove()

    def fingerprint(self) -> str:
        """Return the hash of the weights that this model was loaded from (hex)."""
        return self.source.fingerprint()

    def state_key(self) -> str:
        """Return the hash of the weights and what was added to them: tokens, mean pooling."""
        return f"{self.fingerprint()} {self._added} {'mean' if self._pooling else 'own'}"

    def save(self, folder: Path) -> None:
        """Write config, safetensors and tokenizer; plain `from_pretrained` loads them."""
        if self._pooling is not None:
            self._pooling.complete()
        try:
            with quiet():
                self.model.save_pretrained(folder)
                self.tokenizer.save_pretrained(folder)
        finally:
            if self._pooling is not None:
                self._pooling.skip()


def load_text_backbone(
    name: str,
    *,
    auto_class: str,
    options: dict[str, Any],
    offline: bool,
    seed: int = 0,
    kind: type[TextBackbone] = TextBackbone,
) -> TextBackbone:
    """Load a backbone with a new head, or a fine-tuned model with its own.

    `options` go to the configuration (num_labels, id2label …). Code that comes with a model is never
    run and only safetensors are read. `kind`: the class made of it; language models bring their heads along.
    Raises BackboneError.
    """
    import transformers

    source = resolve(name)
    common = {"local_files_only": source.local or offline, "trust_remote_code": False}
    torch.manual_seed(seed)  # the new head's initial weights
    try:
        with quiet(), hub_closed(source.local or offline):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.location, **common)
            model, report = getattr(transformers, auto_class).from_pretrained(
                source.location, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True, **common, **options
            )  # fmt: skip
    except Exception as error:  # the libraries raise many kinds; all mean that it cannot be loaded
        raise BackboneError(_explain(name, source, offline, error)) from error
    _check_weights(name, model, report, kind.new_head)
    _give_padding(tokenizer, model)
    return kind(source.name, model, tokenizer, source)


def _check_weights(name: str, model: Any, report: dict[str, Any], new_head: bool) -> None:
    """Raise BackboneError where weights are missing: they would silently be random. A new head's are expected to."""
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    found = map_layers(model)
    top = found.count if new_head else found.count + 1
    pretrained = sorted(key for key in absent if found.depth.get(key, found.count + 1) <= top)
    if pretrained:
        raise BackboneError(
            f"Backbone {name!r} lacks {len(pretrained)} of its weights, or they have other sizes than its "
            f"config.json says: {', '.join(pretrained[:3])} … Get the whole model again"
            f"{'.' if new_head else ', or one that was pretrained with its output layer.'}"
        )


def _give_padding(tokenizer: Any, model: Any) -> None:
    """Decoders often have no padding token: use the end-of-text token, as their heads expect."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _explain(name: str, source: Source, offline: bool, error: Exception) -> str:
    """Say why a backbone did not load and what to do."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not source.local:
        where = "and --offline forbids to fetch it" if offline else "and it could not be fetched"
        return (
            f"Backbone {name!r} ({source.location}) is not in the local hub cache {where}: {reason} "
            "Check the name and the connection, give a local folder, or use the bundled minilm-l6."
        )
    found = sorted(path.name for path in Path(source.location).iterdir())[:12]
    hint = ""
    if not any(item.endswith(".safetensors") for item in found):
        hint = " Its weights must be safetensors; other formats can run code when read and are refused."
    return f"Backbone folder {source.location} cannot be loaded: {reason}{hint} It holds: {', '.join(found)}."


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports, which are expected here, and restore them."""
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _in_float32(linear: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Return a linear layer's output, computed anew in float32."""
    bias = None if linear.bias is None else linear.bias.float()
    with torch.autocast(output.device.type, enabled=False):
        return nn.functional.linear(inputs[0].float(), linear.weight.float(), bias)


def set_dropout(model: nn.Module, share: float) -> None:
    """Set every dropout inside `model`, those given as numbers to attention functions too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_prob", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
