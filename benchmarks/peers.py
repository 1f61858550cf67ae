"""Hugging Face Trainer as its documentation uses it: the peer that Foretune's speed is measured against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FLAGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "best flags": {"bf16": True, "train_sampling_strategy": "group_by_length"},
}


def tokenised(tokenizer: Any, texts: list[str], labels: list[int], max_length: int) -> Any:
    """Return a `datasets.Dataset` as the documentation's text-classification guide makes it."""
    import datasets

    data = datasets.Dataset.from_dict({"text": texts, "label": labels})
    encode = {"truncation": True, "max_length": max_length}
    return data.map(lambda rows: tokenizer(rows["text"], **encode), batched=True, remove_columns=["text"])


def make_trainer(
    backbone: Path, train: Any, dev: Any | None, classes: int, output: Path, tokenizer: Any, **arguments: Any
) -> Any:
    """Return a Trainer with dynamic padding and accuracy on dev."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=classes)
    settings = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True} | arguments
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(output_dir=str(output), **settings),
        train_dataset=train,
        eval_dataset=dev,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda p: {"accuracy": float((np.argmax(p[0], -1) == p[1]).mean())},
    )
