"""Scores of `tasks.py`: what both sides predicted for the same test rows, by the field's own packages.

A prediction is what `foretune predict` writes for a row: {"label"}, {"value"}, {"entities"}, {"answer"}, {"text"},
{"mask": array} or {"boxes"}. Shares are from 0 to 1, BLEU and chrF from 0 to 100.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Predictions = Sequence[dict[str, Any]]
BLOCK = 256  # tokens that a language model sees at a time where its perplexity is measured


def read(path: str | Path) -> pd.DataFrame:
    """Return a csv or jsonl that `task_data` wrote, strings as they are."""
    if str(path).endswith(".jsonl"):
        return pd.DataFrame([json.loads(line) for line in Path(path).read_text("utf-8").splitlines()])
    return pd.read_csv(path, keep_default_na=False)


def classification(predictions: Predictions, test: str) -> dict[str, float]:
    """Return accuracy and macro F1."""
    from sklearn.metrics import accuracy_score, f1_score

    truth, found = read(test)["label"].tolist(), [p["label"] for p in predictions]
    return {"accuracy": accuracy_score(truth, found), "macro_f1": f1_score(truth, found, average="macro")}


def regression(predictions: Predictions, test: str) -> dict[str, float]:
    """Return Pearson's and Spearman's correlations."""
    from scipy.stats import pearsonr, spearmanr

    truth, found = read(test)["score"].astype(float), [p["value"] for p in predictions]
    return {"pearson": pearsonr(truth, found).statistic, "spearman": spearmanr(truth, found).statistic}


def words(predictions: Predictions, test: str) -> dict[str, float]:
    """Return the F1 of entities in lists of words; entities have first_word and end_word (exclusive)."""
    truth = read(test)["tags"].tolist()
    found = [
        tags_of(p["entities"], len(tags), "first_word", "end_word")
        for p, tags in zip(predictions, truth, strict=True)
    ]
    return _seqeval(truth, found)


def spans(predictions: Predictions, test: str) -> dict[str, float]:
    """Return the F1 of entities in texts; entities have start and end (characters, exclusive)."""
    rows = read(test)
    sizes = rows["text"].map(len)
    truth = [tags_of(each, size) for each, size in zip(rows["entities"], sizes, strict=True)]
    found = [tags_of(p["entities"], size) for p, size in zip(predictions, sizes, strict=True)]
    return _seqeval(truth, found)


def tags_of(
    entities: Sequence[dict[str, Any]], count: int, first: str = "start", end: str = "end"
) -> list[str]:
    """Return BIO tags of `count` places."""
    tags = ["O"] * count
    for each in entities:
        inside = range(each[first], each[end])
        for place in inside:
            tags[place] = ("B-" if place == inside.start else "I-") + each["label"]
    return tags


def _seqeval(truth: list[list[str]], found: list[list[str]]) -> dict[str, float]:
    from seqeval.metrics import f1_score

    return {"f1": float(f1_score(truth, found))}


def answers(predictions: Predictions, test: str) -> dict[str, float]:
    """Return SQuAD's exact match and F1, by torchmetrics' port of the official script."""
    from torchmetrics.functional.text import squad

    asked = [q for p in json.loads(Path(test).read_text("utf-8"))["data"][0]["paragraphs"] for q in p["qas"]]
    found = [{"prediction_text": p["answer"], "id": q["id"]} for p, q in zip(predictions, asked, strict=True)]
    truth = [
        {
            "id": q["id"],
            "answers": {
                "text": [a["text"] for a in q["answers"]],
                "answer_start": [a["answer_start"] for a in q["answers"]],
            },
        }
        for q in asked
    ]
    scores = squad(found, truth)
    return {"f1": float(scores["f1"]) / 100, "exact_match": float(scores["exact_match"]) / 100}


def translation(predictions: Predictions, test: str) -> dict[str, float]:
    """Return BLEU and chrF by sacrebleu."""
    import sacrebleu

    truth, found = [read(test)["de"].tolist()], [p["text"] for p in predictions]
    return {
        "bleu": sacrebleu.corpus_bleu(found, truth).score,
        "chrf": sacrebleu.corpus_chrf(found, truth).score,
    }


def transcription(predictions: Predictions, test: str) -> dict[str, float]:
    """Return word and character error rates by jiwer, without case and punctuation."""
    import jiwer

    plain = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip()])
    truth = [plain(text) for text in read(test)["text"]]
    found = [plain(p["text"]) for p in predictions]
    return {"wer": jiwer.wer(truth, found), "cer": jiwer.cer(truth, found)}


def perplexity(model_folder: Path, test: str) -> dict[str, float]:
    """Return the perplexity of a saved model on a text, in blocks of `BLOCK` tokens, by plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    tokens = tokenizer(Path(test).read_text("utf-8"), return_tensors="pt")["input_ids"][0]
    total, count = 0.0, 0
    with torch.no_grad():
        for block in tokens.split(BLOCK):
            if len(block) > 1:
                total += float(model(input_ids=block[None], labels=block[None]).loss) * (len(block) - 1)
                count += len(block) - 1
    return {"perplexity": math.exp(total / count)}


def masks(predictions: Predictions, test: str) -> dict[str, float]:
    """Return mean IoU over the classes that occur and the share of right pixels, by torchmetrics."""
    import torch
    from PIL import Image
    from torchmetrics.classification import MulticlassConfusionMatrix

    folder = Path(test)
    known = json.loads((folder / "classes.json").read_text("utf-8"))
    ids = [each["id"] for each in known["classes"] if each["id"] != known["ignore_id"]]
    counts = MulticlassConfusionMatrix(max(ids) + 1, ignore_index=known["ignore_id"])
    for predicted, path in zip(predictions, mask_files(folder, "test"), strict=True):
        truth = torch.from_numpy(np.asarray(Image.open(path)).astype(np.int64))
        counts.update(torch.from_numpy(np.asarray(predicted["mask"]).astype(np.int64)), truth)
    table = counts.compute().double()[ids][:, ids]
    union = table.sum(0) + table.sum(1) - table.diag()
    shares = (table.diag() / union)[table.sum(1) > 0]
    return {"miou": float(shares.mean()), "pixel_accuracy": float(table.diag().sum() / table.sum())}


def mask_files(folder: Path, part: str, kind: str = "masks") -> list[Path]:
    """Return the masks (or `kind`="images") of a part, in the order of split.json."""
    by_stem = {file.stem: file for file in (folder / kind).iterdir()}
    return [by_stem[stem] for stem in json.loads((folder / "split.json").read_text("utf-8"))[part]]


def boxes(predictions: Predictions, test: str) -> dict[str, float]:
    """Return average precision by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(test)
        numbers = {each["name"]: each["id"] for each in truth.dataset["categories"]}
        found = [
            {
                "image_id": image["id"],
                "category_id": numbers[b["label"]],
                "score": b["score"],
                "bbox": b["box"],
            }
            for image, predicted in zip(truth.dataset["images"], predictions, strict=True)
            for b in predicted["boxes"]
        ]
        if not found:
            return {"map": 0.0, "map50": 0.0}
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map": float(evaluation.stats[0]), "map50": float(evaluation.stats[1])}


#: What is predicted -> its scores. Of "language" the model itself is scored.
SCORES: dict[str, Callable[[Any, str], dict[str, float]]] = {
    "label": classification, "value": regression, "words": words, "spans": spans, "answer": answers,
    "translation": translation, "transcript": transcription, "language": perplexity, "mask": masks, "boxes": boxes,
}  # fmt: skip
