"""How every metric is called in words, in which unit it is shown, and whether greater is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricName:
    """`share`: the metric runs from 0 to 1 and is shown in percent."""

    spoken: str
    share: bool = True
    greater_is_better: bool = True


def _loss(spoken: str) -> MetricName:
    return MetricName(spoken, share=False, greater_is_better=False)


METRIC_NAMES: dict[str, MetricName] = {
    "accuracy": MetricName("accuracy"),
    "top5_accuracy": MetricName("top-5 accuracy"),
    "macro_f1": MetricName("macro F1"),
    "micro_f1": MetricName("micro F1"),
    "weighted_f1": MetricName("weighted F1"),
    "samples_f1": MetricName("F1 by example"),
    "f1": MetricName("F1"),
    "precision": MetricName("precision"),
    "recall": MetricName("recall"),
    "macro_precision": MetricName("macro precision"),
    "macro_recall": MetricName("macro recall"),
    "subset_accuracy": MetricName("subset accuracy"),
    "hamming_loss": MetricName("Hamming loss", greater_is_better=False),
    "exact_match": MetricName("exact match"),
    "log_loss": _loss("log loss"),
    "loss": _loss("loss"),
    "rmse": _loss("RMSE"),
    "mae": _loss("MAE"),
    "r2": MetricName("R²", share=False),
    "pearson": MetricName("Pearson correlation", share=False),
    "spearman": MetricName("Spearman correlation", share=False),
    "rouge1": MetricName("ROUGE-1"),
    "rouge2": MetricName("ROUGE-2"),
    "rougel": MetricName("ROUGE-L"),
    "bleu": MetricName("BLEU", share=False),
    "chrf": MetricName("chrF", share=False),
    "perplexity": _loss("perplexity"),
    "nats_per_token": _loss("nats per token"),
    "bits_per_byte": _loss("bits per byte"),
    "map": MetricName("mAP@[.5:.95]"),
    "map50": MetricName("mAP@.5"),
    "map75": MetricName("mAP@.75"),
    "miou": MetricName("mean IoU"),
    "pixel_accuracy": MetricName("pixel accuracy"),
    "wer": MetricName("word error rate", greater_is_better=False),
    "cer": MetricName("character error rate", greater_is_better=False),
    "mrr": MetricName("mean reciprocal rank"),
}


def named(metric: str) -> MetricName:
    """Return how `metric` is called; one that is not listed is a share in which greater is better."""
    return METRIC_NAMES.get(metric) or MetricName(metric.replace("_", " "))


#: The trivial models beside a score, in words.
BASELINE_NAMES = {
    "majority": "Majority class",
    "position_majority": "Usual class at each place of the picture",
    "usual_boxes": "Usual boxes at their usual places",
    "pixels_logreg": "Colours of tiny pictures + logistic regression",
    "tfidf": "Shared words (TF-IDF)",
    "mean": "Mean of the training targets",
    "mfcc_logreg": "Cepstra + logistic regression",
    "most_frequent": "The most frequent transcript",
    "tfidf_logreg": "TF-IDF + logistic regression",
    "tfidf_pair_logreg": "TF-IDF of both texts + logistic regression",
    "tfidf_ridge": "TF-IDF + ridge regression",
    "word_tag": "Each word's most frequent tag",
    "seen_entities": "Entities of the training data, looked up",
    "sliding_window": "Sliding window of the question's words",
    "no_answer": "No answer at all",
    "untuned": "The model before fine-tuning",
    "copy": "A copy of the source",
    "lead1": "The first sentence",
    "lead3": "The first three sentences",
    "nearest": "Target of the most similar training source",
    "unigram": "Frequencies of tokens",
    "kneser_ney": "Trigrams of tokens (Kneser-Ney)",
}
