"""Models of sound from transformers behind the Backbone's face: Whisper's encoder, wav2vec 2.0 and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from foretune.backbones.audio_layers import map_audio_layers
from foretune.backbones.base import Backbone
from foretune.backbones.layers import LayerMap
from foretune.backbones.split import Layers, Slot, evaluating
from foretune.backbones.text import quiet
from foretune.data.sound_store import SoundStore, build
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from foretune.backbones.source import Source
    from foretune.data.store import Store

LONGEST = 60  # seconds, where a model takes sounds of any length
FRAME = 0.02  # seconds between two frames of the usual encoders


class AudioBackbone(Backbone):
    """A model of sound with its feature extractor; lengths are its encoder's frames, mostly 20 ms each.

    `window`: the samples that every input is padded to, for models that read nothing else (Whisper); then all
    sounds cost the same. Others read sounds of any length, and shorter ones of a batch are masked. Base models
    of wav2vec 2.0 were trained without a mask (their extractor says so): what a sound gives then depends a little
    on how far it is padded.
    """

    unit = "frames"
    model: Any

    def __init__(self, name: str, model: Any, extractor: Any, source: Source, window: int | None) -> None:
        self.name, self.model, self.source = name, model, source
        self.extractor, self.window = extractor, window
        self.rate = int(extractor.sampling_rate)
        self._fixed_features = False  # whether `linear_head` left a linear map of fixed features
        self._map: LayerMap | None = None
        self.layers_changed()
        self._places = 0 if window is None else self._tried_places()

    @property
    def layers(self) -> LayerMap:
        """Return the layers in order and the depth of every parameter."""
        if self._map is None:
            self._map = map_audio_layers(self.model)
        return self._map

    def layers_changed(self) -> None:
        """Look at the layers anew: a strategy has changed the modules."""
        self._map = None
        self._points: tuple[int, ...] | None = None
        self._split: Layers | None = None

    @property
    def masked(self) -> bool:
        """Return whether a sound's output does not depend on how far it is padded."""
        return self.window is not None or bool(getattr(self.extractor, "return_attention_mask", False))

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Return how many frames the encoder makes of so many samples: (n,) int64."""
        if self.window is not None:
            return np.full(len(samples), self._places, dtype=np.int64)
        found = self.model._get_feat_extract_output_lengths(torch.from_numpy(np.asarray(samples)))
        return found.numpy().astype(np.int64)

    def samples_of(self, frames: int) -> int:
        """Return the least samples of which the encoder makes so many frames."""
        if self.window is not None:
            return self.window * frames // self._places
        low, high = 1, 1
        while self.frames(np.array([high]))[0] < frames:
            low, high = high, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.frames(np.array([middle]))[0] < frames else (low, middle)
        return high

    @property
    def max_length(self) -> int:
        """Return the longest input (frames): the window's, or a minute's."""
        return self._places or int(self.frames(np.array([LONGEST * self.rate]))[0])

    def preprocess(self, inputs: Sequence[Any], *, max_length: int, truncation: str) -> SoundStore:
        """Return the sounds (paths or waves) as a store; only their headers are read yet.

        Raises ConfigError where `max_length` (frames) is more than the model takes.
        """
        if max_length > self.max_length:
            raise ConfigError(
                f"max_tokens is {max_length}, but {self.name} takes at most {self.max_length} frames of "
                f"{1000 * self.frame:.0f} ms. Set it to {self.max_length} or less."
            )
        limit = (
            self.samples_of(max_length) if self.window is not None else self.samples_of(max_length + 1) - 1
        )
        return build(
            inputs, self.rate, self.frames, limit=limit, frame=self.frame, least=self.samples_of(1),
            truncation=truncation,
        )  # fmt: skip

    @property
    def frame(self) -> float:
        """Return how long a frame lasts (seconds)."""
        return FRAME if self.window is None else self.window / self.rate / self._places

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the model's input: spectrograms (batch, mels, frames) or samples (batch, samples) and a mask."""
        assert isinstance(store, SoundStore)
        seeds = store.seeds(rows)
        batch = self.inputs(store.waves(rows, seeds))
        if seeds is not None and store.augmentation is not None and "input_features" in batch:
            for features, seed in zip(batch["input_features"], seeds, strict=True):
                store.augmentation.spectrogram(features, seed)
        return batch

    def inputs(self, waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Return the extractor's features of sounds at the model's rate, as tensors on the CPU."""
        padding = {} if self.window is not None else {"padding": True}
        found = self.extractor(list(waves), sampling_rate=self.rate, return_tensors="pt", **padding)
        names = ("input_features", "input_values", "attention_mask")
        batch = {name: found[name] for name in names if name in found}
        if self.window is not None or ("attention_mask" in batch and bool(batch["attention_mask"].all())):
            batch.pop("attention_mask", None)
        return batch

    def sample_batch(self, length: int) -> dict[str, Tensor]:
        """Return a sound of `length` frames, the same in every process, on the model's device."""
        return self._sample(self.samples_of(length))

    @property
    def sample_lengths(self) -> tuple[int, ...]:
        """Return lengths at which the work is counted: the window's, or a few."""
        return (self._places,) if self.window is not None else (16, 32, 64)

    def _sample(self, *samples: int) -> dict[str, Tensor]:
        """Return sounds of noise of these lengths."""
        chance, device = np.random.default_rng(0), next(self.model.parameters()).device
        waves = [0.1 * chance.standard_normal(n).astype(np.float32) for n in samples]
        return {name: tensor.to(device) for name, tensor in self.inputs(waves).items()}

    def _two(self) -> dict[str, Tensor]:
        """Return two short sounds of unequal length."""
        return self._sample(self.rate // 2, self.rate // 3)

    def _tried_places(self) -> int:
        """Return the frames that the first layer sees of a window."""
        with torch.no_grad(), evaluating(self.model):
            seen = self._found_layers().read(lambda: self._run(self._sample(self.rate // 2)), [0])
        return int(seen[0].shape[1])

    def _run(self, batch: dict[str, Tensor]) -> Any:
        return self.model(**batch)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the head's output in float32: for classification logits (batch, classes)."""
        return self._run(batch).logits.float()

    def _found_layers(self) -> Layers:
        """Return the encoder's layers, at which the model can be split."""
        if self._split is None:
            path = self.layers.path
            parent = self.model.get_submodule(path) if path else None
            names = parent._modules if parent is not None else ()
            self._split = Layers(tuple(Slot(parent, name) for name in names))  # type: ignore[arg-type]
        return self._split

    def split_points(self) -> tuple[int, ...]:
        """Return every k behind which the model can be split, tried on two sounds of unequal length.

        None where padding is not masked: what is stored of a sound would lack what its padding gave.
        """
        if self._points is None:
            with evaluating(self.model):
                run = self._found_layers().points
                self._points = run(lambda: self.forward(self._two())) if self.masked else ()
        return self._points

    def hidden(self, batch: dict[str, Tensor], points: Sequence[int]) -> list[Tensor]:
        """Return the output of the first k layers, (batch, frames, hidden), for every k of `points`."""
        return self._found_layers().read(lambda: self._run(batch), points)

    def forward_from(self, k: int, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the head's output, given that of the first k layers."""
        with self._found_layers().starting_at(k, hidden):
            return self.forward(batch)

    def layer_means(self, batch: dict[str, Tensor]) -> Tensor:
        """Return every layer's mean over time, (batch, n + 1, hidden), padding left out where it is masked."""
        stacked = torch.stack(self.hidden(batch, range(self._found_layers().count + 1)), dim=1)
        mask = batch.get("attention_mask")
        if mask is None:
            return stacked.mean(dim=2)
        real = torch.from_numpy(self.frames(mask.sum(dim=1).cpu().numpy())).to(stacked.device)  # (batch,)
        weights = (torch.arange(stacked.shape[2], device=stacked.device) < real[:, None])[:, None, :, None]
        return (stacked * weights).sum(dim=2) / weights.sum(dim=2)

    def train_above(self, k: int) -> None:
        """Put layers from k on and the head into training mode, what is frozen into evaluation mode."""
        self.model.train()
        if k == 0:
            return
        self.model.eval()
        modules = dict(self.model.named_modules())
        for name, depth in self.layers.depth.items():
            if depth > k:
                modules[name.rpartition(".")[0]].training = True
        for layer in self.layers.layers[k:]:
            layer.train()

    @property
    def classifier(self) -> nn.Linear | None:
        """Return the last linear map of the head, which gives the logits."""
        names = {name.rpartition(".")[0] for name in self.layers.head()}
        linears = [m for name, m in self.model.named_modules() if name in names and isinstance(m, nn.Linear)]
        return linears[-1] if linears else None

    @property
    def linear(self) -> bool:
        """Return whether `linear_head` left a linear map of one vector per sound, tried on two."""
        if not self._fixed_features:
            return False
        with torch.no_grad(), evaluating(self.model):
            batch = self._two()
            features = self.features(batch)
            return features is not None and torch.allclose(
                self.head(features), self.forward(batch), atol=1e-4
            )

    def features(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Return the classifier's input (batch, hidden), or None where it reads every frame."""
        seen: list[Tensor] = []
        classifier = self.classifier
        if classifier is None:
            return None
        hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self._run(batch)
        finally:
            hook.remove()
        return seen[0] if seen and seen[0].ndim == 2 else None

    def head(self, features: Tensor) -> Tensor:
        """Return the logits (batch, classes) of the classifier in float32."""
        assert self.classifier is not None
        return self.classifier(features).float()

    def linear_head(self) -> tuple[list[nn.Parameter], float]:
        """Return the classifier's parameters; what stands before it in the head is linear and stays fixed.

        Raises ConfigError for a model without a head of its own.
        """
        classifier = self.classifier
        if classifier is None:
            raise ConfigError(
                f"{self.name} writes with its decoder and has no head to train alone. Choose --strategy top-layers, "
                "lora or full."
            )
        self._fixed_features = True
        return list(classifier.parameters()), 1.0

    def use_mean_pooling(self) -> bool:
        """Return whether the head reads the mean over time anyway; it is left as it is."""
        return not self.pools or hasattr(self.model, "projector")

    def train_seen_embeddings(self, store: Store) -> None:
        """Do nothing: sounds have no vocabulary."""

    def learn_vocabulary(self, inputs: Sequence[Any]) -> int:
        """Return 0: sounds have no vocabulary."""
        return 0

    def fold_embeddings(self) -> None:
        """Do nothing: sounds have no vocabulary."""

    def fingerprint(self) -> str:
        """Return the hash of the weights that this model was loaded from (hex)."""
        return self.source.fingerprint()

    def state_key(self) -> str:
        """Return the hash of the weights and of how sounds are prepared."""
        return f"{self.fingerprint()} {self.window} {self.extractor.to_json_string()}"

    def save(self, folder: Path) -> None:
        """Write config, safetensors and feature extractor; plain `from_pretrained` loads them."""
        with quiet():
            self.model.save_pretrained(folder)
            self.extractor.save_pretrained(folder)
