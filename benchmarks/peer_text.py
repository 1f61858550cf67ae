"""Plain Hugging Face scripts for tasks that read texts: the examples' `run_glue`, `run_ner` and `run_qa`, shortened.

`Trainer` with its own optimizer, schedule (linear, no warm-up) and no weights kept but the last; batches are padded
to their longest text. Every function takes the job, a dict (see `tasks.peer_job`), and returns predictions of the
test rows and the seconds of training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from task_scores import read

Result = tuple[list[dict[str, Any]], float]
LONGEST = 512  # tokens of a text
LONGEST_ANSWER, BEST = 30, 20  # as `run_qa`


def arguments(job: dict[str, Any], kind: str = "TrainingArguments", **more: Any) -> Any:
    """Return the training arguments that all scripts share."""
    import transformers

    return getattr(transformers, kind)(
        output_dir=job["output"], report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True,
        seed=job["seed"], num_train_epochs=job["epochs"], learning_rate=job["rate"],
        per_device_train_batch_size=job["batch"], **more,
    )  # fmt: skip


def train(trainer: Any) -> float:
    """Train and return the seconds."""
    import time

    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def pairs(job: dict[str, Any]) -> Result:
    """Classify pairs of texts, or predict a number for each, as `run_glue` does."""
    import datasets
    import transformers

    tables = {part: read(job[part]) for part in ("train", "test")}
    target = tables["train"].columns[-1]
    names = None if target == "score" else sorted(tables["train"][target].unique())
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["backbone"])

    def encoded(part: str) -> Any:
        rows = tables[part]
        items = tokenizer(
            rows["text_a"].tolist(), rows["text_b"].tolist(), truncation=True, max_length=LONGEST
        )
        values = rows[target]
        items["labels"] = [float(v) if names is None else names.index(v) for v in values]
        return datasets.Dataset.from_dict(dict(items))

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job["backbone"], num_labels=1 if names is None else len(names)
    )
    trainer = transformers.Trainer(
        model=model, args=arguments(job), train_dataset=encoded("train"), processing_class=tokenizer,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    seconds = train(trainer)
    outputs = trainer.predict(encoded("test")).predictions
    if names is None:
        return [{"value": float(v)} for v in outputs[:, 0]], seconds
    return [{"label": names[i]} for i in outputs.argmax(-1)], seconds


def words(job: dict[str, Any]) -> Result:
    """Label lists of words, as `run_ner` does."""
    tables = {part: read(job[part]) for part in ("train", "test")}
    sentences = {part: rows["tokens"].tolist() for part, rows in tables.items()}
    found, seconds = _tags(job, sentences, tables["train"]["tags"].tolist())
    return [{"entities": entities_of(tags, "first_word", "end_word")} for tags in found], seconds


def characters(job: dict[str, Any]) -> Result:
    """Label every character of texts with entities: Chinese NER by `run_ner`."""
    from task_scores import tags_of

    tables = {part: read(job[part]) for part in ("train", "test")}
    sentences = {part: [list(text) for text in rows["text"]] for part, rows in tables.items()}
    known = zip(tables["train"]["entities"], sentences["train"], strict=True)
    found, seconds = _tags(job, sentences, [tags_of(each, len(text)) for each, text in known])
    return [{"entities": entities_of(tags)} for tags in found], seconds


def _tags(
    job: dict[str, Any], sentences: dict[str, list[list[str]]], truth: list[list[str]]
) -> tuple[list[list[str]], float]:
    import datasets
    import transformers

    names = sorted({tag for tags in truth for tag in tags})
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["backbone"])

    def encoded(part: str) -> tuple[Any, list[list[int]]]:
        items = tokenizer(sentences[part], is_split_into_words=True, truncation=True, max_length=LONGEST)
        firsts = [first_tokens(items.word_ids(i)) for i in range(len(sentences[part]))]
        labels = [[-100] * len(ids) for ids in items["input_ids"]]
        if part == "train":
            for row, places, tags in zip(labels, firsts, truth, strict=True):
                for place, tag in zip(places, tags, strict=False):
                    row[place] = names.index(tag)
        return datasets.Dataset.from_dict({**items, "labels": labels}), firsts

    model = transformers.AutoModelForTokenClassification.from_pretrained(
        job["backbone"], num_labels=len(names)
    )
    trainer = transformers.Trainer(
        model=model, args=arguments(job), train_dataset=encoded("train")[0], processing_class=tokenizer,
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
    )  # fmt: skip
    seconds = train(trainer)
    rows, firsts = encoded("test")
    best = trainer.predict(rows).predictions.argmax(-1)
    return [
        [names[row[place]] if place >= 0 else "O" for place in places]
        for row, places in zip(best, firsts, strict=True)
    ], seconds


def first_tokens(word_ids: Sequence[int | None]) -> list[int]:
    """Return the place of each word's first token; -1 for a word without one."""
    first: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, place)
    return [first.get(word, -1) for word in range(max(first, default=-1) + 1)]


def entities_of(tags: Sequence[str], first: str = "start", end: str = "end") -> list[dict[str, Any]]:
    """Return the entities of BIO tags; an I- after another type begins one, as seqeval reads it."""
    found: list[dict[str, Any]] = []
    before = "O"
    for place, tag in enumerate(tags):
        kind = tag[2:]
        if tag == "O":
            pass
        elif tag.startswith("B-") or before[2:] != kind:
            found.append({first: place, end: place + 1, "label": kind})
        else:
            found[-1][end] = place + 1
        before = tag
    return found


def questions(job: dict[str, Any]) -> Result:
    """Answer questions from texts, as `run_qa` does; texts in windows of 256 tokens that share 128 at most."""
    import datasets
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job["backbone"])
    longest = job["max_tokens"]
    windows = {"truncation": "only_second", "max_length": longest, "stride": min(128, longest // 2)}
    windows |= {"return_overflowing_tokens": True, "return_offsets_mapping": True}

    def encoded(part: str) -> tuple[Any, Any, list[dict[str, Any]]]:
        asked = list(_asked(job[part]))
        items = tokenizer([q["question"] for q in asked], [q["context"] for q in asked], **windows)
        marks = [
            _marks(items, row, asked[owner]) for row, owner in enumerate(items["overflow_to_sample_mapping"])
        ]
        kept = {name: items[name] for name in tokenizer.model_input_names}
        kept |= {"start_positions": [m[0] for m in marks], "end_positions": [m[1] for m in marks]}
        return datasets.Dataset.from_dict(kept), items, asked

    trainer = transformers.Trainer(
        model=transformers.AutoModelForQuestionAnswering.from_pretrained(job["backbone"]), args=arguments(job),
        train_dataset=encoded("train")[0], processing_class=tokenizer,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    seconds = train(trainer)
    rows, items, asked = encoded("test")
    starts, ends = trainer.predict(rows).predictions
    best: dict[int, tuple[float, str]] = {}
    for row, owner in enumerate(items["overflow_to_sample_mapping"]):
        score, first, last = best_span(starts[row], ends[row], _context_places(items, row))
        if owner not in best or score > best[owner][0]:
            places = items["offset_mapping"][row]
            best[owner] = score, asked[owner]["context"][places[first][0] : places[last][1]]
    return [{"answer": best[number][1]} for number in range(len(asked))], seconds


def _asked(path: str) -> Any:
    for article in json.loads(Path(path).read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {**question, "context": paragraph["context"]}


def _context_places(items: Any, row: int) -> list[int]:
    return [place for place, owner in enumerate(items.sequence_ids(row)) if owner == 1]


def _marks(items: Any, row: int, question: dict[str, Any]) -> tuple[int, int]:
    """Return the answer's first and last token; (0, 0), the first token, where the window does not hold it."""
    answer = question["answers"][0]
    start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    offsets, places = items["offset_mapping"][row], _context_places(items, row)
    if not places or offsets[places[0]][0] > start or offsets[places[-1]][1] < end:
        return 0, 0
    first = max(p for p in places if offsets[p][0] <= start)
    last = min(p for p in places if offsets[p][1] >= end)
    return first, last


def best_span(starts: np.ndarray, ends: np.ndarray, places: Sequence[int]) -> tuple[float, int, int]:
    """Return (score, first, last) of the best span of at most 30 tokens within `places`."""
    allowed = np.array(places)
    firsts = allowed[np.argsort(-starts[allowed])[:BEST]]
    lasts = allowed[np.argsort(-ends[allowed])[:BEST]]
    pairs = [(i, j) for i in firsts for j in lasts if i <= j < i + LONGEST_ANSWER] or [(firsts[0], firsts[0])]
    return max((float(starts[i] + ends[j]), int(i), int(j)) for i, j in pairs)
