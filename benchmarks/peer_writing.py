"""Plain Hugging Face scripts for tasks that write: `run_translation`, `run_clm` and Whisper's fine-tuning, shortened.

See `peer_text` for what the functions take and return.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peer_text import Result, arguments, train
from task_scores import BLOCK, read

BEAMS = 4


def translation(job: dict[str, Any]) -> Result:
    """Translate, as `run_translation` does."""
    import datasets
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job["backbone"])
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(job["backbone"], dtype="float32")

    def encoded(part: str) -> Any:
        rows = read(job[part])
        items = tokenizer(
            rows["en"].tolist(), text_target=rows["de"].tolist(), truncation=True, max_length=128
        )
        return datasets.Dataset.from_dict(dict(items))

    trainer = transformers.Seq2SeqTrainer(
        model=model, args=arguments(job, "Seq2SeqTrainingArguments", predict_with_generate=True),
        train_dataset=encoded("train"), processing_class=tokenizer,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=model),
    )  # fmt: skip
    seconds = train(trainer)
    found = trainer.predict(encoded("test"), num_beams=BEAMS, max_new_tokens=64).predictions
    return _texts(tokenizer, found), seconds


def _texts(tokenizer: Any, tokens: Any) -> list[dict[str, str]]:
    import numpy as np

    texts = tokenizer.batch_decode(
        np.where(tokens < 0, tokenizer.pad_token_id, tokens), skip_special_tokens=True
    )
    return [{"text": text} for text in texts]


def language(job: dict[str, Any]) -> Result:
    """Go on with a running text, as `run_clm` does, in blocks of `BLOCK` tokens; the model is saved and scored."""
    import datasets
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job["backbone"])
    tokens = tokenizer(Path(job["train"]).read_text("utf-8"))["input_ids"]
    blocks = [tokens[start : start + BLOCK] for start in range(0, len(tokens) - BLOCK + 1, BLOCK)]
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(job["backbone"], dtype="float32"),
        args=arguments(job), processing_class=tokenizer, data_collator=transformers.default_data_collator,
        train_dataset=datasets.Dataset.from_dict({"input_ids": blocks, "labels": blocks}),
    )  # fmt: skip
    seconds = train(trainer)
    trainer.save_model(job["output"])
    return [], seconds


def whisper(job: dict[str, Any]) -> Result:
    """Transcribe with Whisper, after "Fine-Tune Whisper with Transformers" (Hugging Face blog, 2022)."""
    import torch
    import transformers

    processor = transformers.WhisperProcessor.from_pretrained(job["backbone"])
    model = transformers.WhisperForConditionalGeneration.from_pretrained(job["backbone"], dtype="float32")
    tokenizer = processor.tokenizer

    def encoded(part: str) -> list[dict[str, Any]]:
        rows = read(job[part])
        heard = features(processor.feature_extractor, rows["path"].tolist())
        return [
            {"input_features": sound, "labels": tokenizer(text).input_ids}
            for sound, text in zip(heard, rows["text"], strict=True)
        ]

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        labels = tokenizer.pad({"input_ids": [item["labels"] for item in items]}, return_tensors="pt")
        ids = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
        if (ids[:, 0] == model.config.decoder_start_token_id).all():  # the model puts it there itself
            ids = ids[:, 1:]
        sounds = torch.stack([torch.as_tensor(item["input_features"]) for item in items])
        return {"input_features": sounds, "labels": ids}

    trainer = transformers.Seq2SeqTrainer(
        model=model, train_dataset=encoded("train"), data_collator=collate,
        args=arguments(job, "Seq2SeqTrainingArguments", predict_with_generate=True, remove_unused_columns=False),
    )  # fmt: skip
    seconds = train(trainer)
    return _texts(tokenizer, trainer.predict(encoded("test"), max_new_tokens=64).predictions), seconds


def features(extractor: Any, paths: list[str]) -> list[Any]:
    """Return what Whisper reads of sound files: (80, 3000) each, 30 seconds, padded with silence."""
    import numpy as np
    import soundfile
    import soxr

    found = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = soxr.resample(samples.mean(1), rate, extractor.sampling_rate)
        found.append(np.asarray(extractor(wave, sampling_rate=extractor.sampling_rate).input_features[0]))
    return found
