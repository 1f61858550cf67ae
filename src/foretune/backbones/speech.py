"""Speech recognisers behind the Backbone's face: wav2vec 2.0 types with CTC, Whisper types with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretune.backbones.audio import AudioBackbone
from foretune.backbones.audio_load import check_weights, loaded, prepared
from foretune.backbones.source import Source, hub_closed, resolve
from foretune.backbones.text import _explain, quiet
from foretune.backbones.transcriber import CTC, SEQ2SEQ, Transcriber, character_tokenizer
from foretune.data import store as stores
from foretune.data.media import require
from foretune.data.paired_store import IGNORED
from foretune.data.sound_store import SoundStore
from foretune.data.store import CutReport, RaggedStore, Store
from foretune.errors import BackboneError, ForetuneError

MARGIN = 8  # places kept free in the decoder for its prompt
NOT_INPUTS = ("labels", "frames")


class SpeechBackbone(AudioBackbone):
    """A model that writes what is said. Batches of labelled sounds hold `labels` (batch, tokens) besides.

    Outputs are logits: (batch, frames, vocabulary) for CTC, (batch, tokens, vocabulary) of a decoder that reads
    the labels before each token.
    """

    pools = False

    def __init__(
        self, name: str, model: Any, extractor: Any, source: Source, window: int | None, writer: Transcriber
    ) -> None:
        self.writer = writer
        self.new_head = False
        super().__init__(name, model, extractor, source, window)

    @property
    def start(self) -> int:
        """Return the id that a decoder is given first."""
        return int(self.model.config.decoder_start_token_id)

    def labels(self, texts: Sequence[str], *, cut: bool = False) -> RaggedStore:
        """Return the ids of transcripts, as the model learns to write them; `cut`: no more than a decoder can."""
        start = self.start if self.writer.way == SEQ2SEQ else None
        ids = self.writer.ids(texts, start)
        if cut and self.longest_written is not None:
            ids = [each[: self.longest_written] for each in ids]
        return stores.build(ids, CutReport(examples=len(texts)))

    @property
    def longest_written(self) -> int | None:
        """Return how many tokens the decoder can write; None for CTC, where the frames say so."""
        most = getattr(self.model.config, "max_target_positions", None)
        return None if self.writer.way == CTC or most is None else int(most) - MARGIN

    def collate(self, store: Store, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the model's input, the frames of each sound, and of labelled sounds the labels."""
        assert isinstance(store, SoundStore)
        batch = super().collate(store, rows)
        batch["frames"] = torch.from_numpy(store.lengths[rows])
        if store.labels is not None:
            batch["labels"] = torch.from_numpy(store.labels.padded(rows, IGNORED)[0])
            if self.writer.way == SEQ2SEQ:
                batch["decoder_input_ids"] = self._shifted(batch["labels"])
        return batch

    def _shifted(self, labels: Tensor) -> Tensor:
        """Return what the decoder reads, (batch, tokens): its start, then all labels but the last."""
        start = labels.new_full((len(labels), 1), self.start)
        return torch.cat([start, labels[:, :-1]], dim=1).masked_fill_(_ignored(labels), self.writer.blank)

    def _sample(self, *samples: int) -> dict[str, Tensor]:
        batch = super()._sample(*samples)
        if self.writer.way == SEQ2SEQ:
            device = next(self.model.parameters()).device
            batch["decoder_input_ids"] = torch.full((len(samples), 4), self.start, device=device)
        return batch

    def _run(self, batch: dict[str, Tensor]) -> Any:
        return self.model(**{name: tensor for name, tensor in batch.items() if name not in NOT_INPUTS})

    def write(self, batch: dict[str, Tensor], limit: int, **options: Any) -> Tensor:
        """Return what a decoder writes for a batch of sounds: ids (batch, at most `limit`), padded."""
        given = {
            name: batch[name]
            for name in ("input_features", "input_values", "attention_mask")
            if name in batch
        }
        # On a CPU autocast turns all weights into bf16 anew for every token.
        with torch.autocast("cpu", enabled=False), quiet():  # of two limits on the length the lower one holds
            written: Tensor = self.model.generate(
                **given, max_new_tokens=min(limit, self.longest_written or limit), **options
            )
        return written

    def save(self, folder: Path) -> None:
        """Write config, safetensors, feature extractor and tokenizer; plain `from_pretrained` loads them."""
        super().save(folder)
        with quiet():
            self.writer.tokenizer.save_pretrained(folder)


def _ignored(labels: Tensor) -> Tensor:
    """Return which places of the shifted labels follow an ignored one: (batch, tokens) bool."""
    behind = labels[:, :-1] == IGNORED
    return (
        torch.cat([torch.zeros_like(behind[:, :1]), behind], dim=1) if labels.shape[1] else labels == IGNORED
    )


def load_speech_backbone(
    name: str,
    *,
    characters: str,
    offline: bool,
    seed: int = 0,
    seconds: float | None = None,
    language: str = "",
) -> SpeechBackbone:
    """Load a speech recogniser, or an encoder that gets a head of letters.

    `characters`: of the training transcripts, for an encoder without a vocabulary. `seconds`: the longest sound,
    to which Whisper's window is cut. `language`: of multilingual Whisper models. Raises BackboneError.
    """
    require("soundfile", "audio")
    source = resolve(name)
    torch.manual_seed(seed)
    try:
        return _load(name, source, characters, offline, seconds, language)
    except ForetuneError:
        raise
    except Exception as error:  # the libraries raise many kinds; all mean that it cannot be loaded
        raise BackboneError(_explain(name, source, offline, error)) from error


def _load(
    name: str, source: Source, characters: str, offline: bool, seconds: float | None, language: str
) -> SpeechBackbone:
    import transformers

    common = {"local_files_only": source.local or offline, "trust_remote_code": False}
    with quiet(), hub_closed(source.local or offline):
        config = transformers.AutoConfig.from_pretrained(source.location, **common)
        writes = bool(config.is_encoder_decoder)
        tokenizer = _tokenizer(source, common, config)
    if tokenizer is None and writes:
        raise BackboneError(
            f"Backbone {name!r} writes with a decoder but holds no tokenizer. Get the whole model."
        )
    if tokenizer is None:
        tokenizer = character_tokenizer(characters)
    options = {} if writes else {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    auto_class = "AutoModelForSpeechSeq2Seq" if writes else "AutoModelForCTC"
    model, extractor, absent = loaded(source, auto_class, options, offline)
    check_weights(name, model, absent)
    if writes:
        _speak(model, tokenizer, language)
    writer = Transcriber(tokenizer, SEQ2SEQ if writes else CTC, int(tokenizer.pad_token_id))
    found = SpeechBackbone(source.name, model, extractor, source, prepared(model, extractor, seconds), writer)
    found.new_head = any(key.startswith("lm_head") for key in absent)
    return found


def _tokenizer(source: Source, common: dict[str, Any], config: Any) -> Any | None:
    """Return the tokenizer of a recogniser; None where the model is an encoder without a vocabulary."""
    import transformers

    heads = [str(each) for each in getattr(config, "architectures", None) or ()]
    if not config.is_encoder_decoder and not any(each.endswith("ForCTC") for each in heads):
        return None
    return transformers.AutoTokenizer.from_pretrained(source.location, **common)


def _speak(model: Any, tokenizer: Any, language: str) -> None:
    """Settle how long a decoder writes and a multilingual Whisper's language. Raises BackboneError without one."""
    config = model.generation_config
    config.max_length = model.config.max_target_positions
    if not getattr(config, "is_multilingual", False):
        return
    chosen = language or getattr(config, "language", None)
    if not chosen:
        raise BackboneError("This model hears many languages: name yours, such as --option language=chinese.")
    try:
        tokenizer.set_prefix_tokens(language=chosen, task="transcribe", predict_timestamps=False)
    except ValueError as error:
        raise BackboneError(f"Option language is {chosen!r}: {error}") from error
    config.language, config.task, config.forced_decoder_ids = chosen, "transcribe", None
