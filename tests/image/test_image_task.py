"""Classification of pictures: reading tables, losses, scores, baselines, what the report shows."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from foretune.data.columns import Columns
from foretune.data.image_augment import Augmentation
from foretune.errors import DataError
from foretune.evaluation.image_baselines import image_baselines, pixel_features
from foretune.evaluation.image_scores import ImageScores
from foretune.evaluation.image_sections import thumbnail
from foretune.recipe import Recipe
from foretune.strategies.base import Settings, Workload
from foretune.strategies.full import Full
from foretune.strategies.linear_probe import LinearProbe
from foretune.strategies.lora import Lora
from foretune.strategies.top_layers import TopLayers
from foretune.tasks.image_classification import BATCH, ImageClassification

COLUMNS = Columns("path", "label", "as told")


def table_of(paths, labels):
    return pd.DataFrame({"path": paths, "label": labels})


@pytest.fixture
def table(pictures):
    return table_of(pictures, ["ant", "bee", "ant", "bee", "ant", "bee"])


@pytest.fixture
def task(table):
    return ImageClassification.from_table(table, COLUMNS, Recipe())


def test_a_clean_table_has_rare_classes_only(table):
    (warning,) = ImageClassification.audit(table, COLUMNS, where="train")
    assert "fewer than" in warning


def test_copies_are_found_by_their_bytes(table, tmp_path):
    copy = shutil.copy(table["path"][1], tmp_path / "copy.png")
    same = table_of([*table["path"], copy], [*table["label"], "bee"])
    other = table_of([*table["path"], copy], [*table["label"], "ant"])
    warnings = "\n".join(ImageClassification.audit(same, COLUMNS, where="train"))
    assert "1 picture of 7" in warnings and "row 7" in warnings and "different labels" not in warnings
    assert "different labels" in "\n".join(ImageClassification.audit(other, COLUMNS, where="train"))


def test_leaks_between_parts_are_found_by_bytes(table, tmp_path):
    copy = shutil.copy(table["path"][1], tmp_path / "copy.png")
    (warning,) = ImageClassification.overlap(table, table_of([copy], ["bee"]), COLUMNS, "test")
    assert warning.startswith("test: 1 picture of 1") and "too good" in warning
    assert ImageClassification.overlap(table[:3], table[3:], COLUMNS, "test") == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("broken.png", r"broken\.png"),
        ("nowhere.png", r"nowhere\.png"),
        (None, "Row 7"),
        (3, "Row 7"),
    ],
)
def test_rows_that_cannot_be_read_are_named(table, tmp_path, value, words):
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    path = str(tmp_path / value) if isinstance(value, str) else value
    with pytest.raises(DataError, match=words):
        ImageClassification.audit(
            table_of([*table["path"], path], [*table["label"], "ant"]), COLUMNS, where="train"
        )


def test_examples_copies_stay_together_and_the_state_comes_back(table, task):
    examples = task.examples(table, where="train")
    assert examples.targets.tolist() == [0, 1, 0, 1, 0, 1] and examples.inputs == table["path"].tolist()
    assert len(set(task.groups(examples))) == 6 and task.texts(examples) == []
    again = ImageClassification.from_state(task.state())
    assert again.labels == ("ant", "bee") and again.columns.text == "path"


@pytest.mark.parametrize("strategy", (Full, LinearProbe, TopLayers, Lora))
@pytest.mark.parametrize("count", (900, 4_000, 100_000))
def test_a_step_reads_tens_of_pictures_whatever_the_strategy(task, strategy, count):
    work = Workload(count, count, 2, "images")
    given = strategy().defaults(work)
    found = task.adjusted(given, work)
    assert found.batch_tokens == BATCH < given.batch_tokens
    assert (found.lr, found.epochs, found.layer_decay) == (given.lr, given.epochs, given.layer_decay)


@pytest.mark.parametrize(
    ("count", "batch", "epochs"),
    [(20, 8, 10), (100, 8, 10), (200, 16, 10), (400, 32, 10), (600, 32, 7), (799, 32, 5)],
)
def test_small_sets_take_small_steps_and_enough_of_them(task, count, batch, epochs):
    work = Workload(count, count, 2, "images")
    found = task.adjusted(Full().defaults(work), work)
    assert (found.batch_tokens, found.epochs) == (batch, epochs)
    probe = task.adjusted(LinearProbe().defaults(work), work)
    assert probe.epochs == LinearProbe().defaults(work).epochs


def test_a_strategys_smaller_batch_is_kept(task):
    settings = Settings(lr=1e-3, epochs=12, batch_tokens=4)
    assert task.adjusted(settings, Workload(100, 100, 2, "images")) == settings


def test_paths_count_from_the_tables_folder(table, task, tmp_path):
    near = table_of([f"pictures/{n}.png" for n in range(6)], table["label"])
    near.attrs["folder"] = str(tmp_path)
    assert task.examples(near, where="train").inputs == table["path"].tolist()
    assert len(ImageClassification.audit(near, COLUMNS, where="train")) == 1


def test_the_recipes_options_say_how_pictures_vary(table):
    recipe = Recipe(options={"mixup": 0.2, "layers": 1})
    task = ImageClassification.from_table(table, COLUMNS, recipe)
    assert task.augmentation == Augmentation(mixup=0.2) and "rand_augment" in task.option_names()


def test_what_predict_is_given(task, pictures):
    array = np.zeros((4, 5, 3), dtype=np.uint8)
    assert task.from_inputs(pictures[0]).inputs == [pictures[0]]
    assert len(task.from_inputs([pictures[0], array])) == 2 and len(task.from_inputs(array)) == 1
    assert len(task.probes()) == 2
    with pytest.raises(DataError, match=r"\(4, 5\) of float64"):
        task.from_inputs([np.zeros((4, 5))])
    with pytest.raises(DataError, match="Row 2 holds int"):
        task.from_inputs([pictures[0], 7])
    with pytest.raises(DataError, match="table"):
        task.from_inputs(pd.DataFrame({"path": pictures}))


def test_mixup_costs_both_labels_by_their_shares(task):
    outputs, targets = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    order = torch.tensor([1, 2, 3, 0])
    batch = {"mix_order": order, "mix_share": torch.tensor([0.25])}
    soft = 0.25 * torch.eye(2)[targets] + 0.75 * torch.eye(2)[targets[order]]
    expected = -(soft * outputs.log_softmax(-1)).sum()
    assert torch.allclose(task.loss(outputs, targets, batch), expected)
    plain = torch.nn.functional.cross_entropy(outputs, targets, reduction="sum")
    assert torch.allclose(task.loss(outputs, targets, {"pixels": outputs}), plain)


def test_only_training_pictures_are_augmented(task, table, network):
    from foretune.backbones.image_load import load_image_backbone

    backbone = load_image_backbone(str(network("test_resnet")), options=task.model_options(), offline=True)
    examples = task.examples(table, where="train")
    plain, varied = (
        task.encode(backbone, examples, max_length=1, truncation="tail", training=training).store
        for training in (False, True)
    )
    assert (plain.varies, varied.varies, plain.key() == varied.plain().key()) == (False, True, True)
    assert varied.augmentation == Augmentation()
    (sheet,) = task.sections({}, [])
    assert "data:image/png;base64," in sheet


def test_the_report_shows_the_mistaken_pictures(task, table):
    worst = task.worst(task.examples(table, where="test"), None, 5)
    worst.update(np.arange(6), np.tile([0.9, 0.1], (6, 1)).astype(np.float32), np.array([0, 1] * 3))
    found = worst.top()
    assert [each["text"] for each in found] == table["path"][1::2].tolist()
    found[1]["text"] = "gone.png"
    found[2]["true"] = "<b>"
    (section,) = task.sections({}, found)
    assert section.count("data:image/jpeg;base64,") == 2
    assert "ant (90 %), labelled bee" in section and "<b>" not in section and "&lt;b&gt;" in section


def test_thumbnails_are_small(tmp_path, paint):
    large = paint(tmp_path / "large.jpg", (100, 150, 200), size=(900, 1200))
    assert 1_000 < len(thumbnail(large)) < 20_000


# --- scores and baselines --------------------------------------------------------


def test_top_5_agrees_with_scikit_learn():
    chance = np.random.default_rng(0)
    probabilities = chance.dirichlet(np.full(8, 0.5), 200).astype(np.float32)
    targets = chance.integers(0, 8, 200)
    scores = ImageScores(8)
    for part in np.array_split(np.arange(200), 3):
        scores.update(probabilities[part], targets[part])
    expected = top_k_accuracy_score(targets, probabilities, k=5, labels=np.arange(8))
    assert scores.point()["top5_accuracy"] == pytest.approx(expected)
    result = scores.result()["top5_accuracy"]
    assert result["low"] < result["value"] < result["high"] and result["value"] == pytest.approx(expected)


def test_equal_probabilities_put_lower_classes_first():
    scores = ImageScores(10)
    scores.update(np.full((10, 10), 0.1, dtype=np.float32), np.arange(10))
    assert scores.point()["top5_accuracy"] == 0.5 and scores.point()["accuracy"] == 0.1


def test_few_classes_have_no_top_5(task):
    scores = ImageScores(5)
    scores.update(np.full((1, 5), 0.2, dtype=np.float32), np.array([4]))
    assert "top5_accuracy" not in scores.point() and "top5_accuracy" not in scores.result()
    many = ImageClassification(tuple("abcdef"), COLUMNS, None)
    assert "top5_accuracy" not in task.metrics and "top5_accuracy" in many.metrics


def test_merged_scores_count_all():
    first, second = ImageScores(6), ImageScores(6)
    for scores in (first, second):
        scores.update(np.eye(6, dtype=np.float32), np.arange(6))
    first.merge(second)
    assert first.n == 12 and first.point()["top5_accuracy"] == 1.0


def test_features_are_colours():
    picture = np.zeros((16, 24, 3), dtype=np.uint8)
    picture[:, 12:] = (255, 128, 0)
    found = pixel_features(picture)
    small = found[:192].reshape(8, 8, 3)
    assert small[:, :4].max() == 0 and small[0, 7] == pytest.approx([1, 128 / 255, 0])
    histogram = found[192:].reshape(3, 8)
    assert histogram.sum(axis=1) == pytest.approx([1, 1, 1]) and histogram[0, 7] == histogram[1, 4] == 0.5


def test_colours_are_learnt_and_the_majority_is_not(tmp_path, paint):
    colours = {0: (200, 60, 60), 1: (60, 60, 200)}
    labels = np.array([0] * 12 + [1] * 8)
    paths = [paint(tmp_path / f"{n}.png", colours[k], size=(12, 12), seed=n) for n, k in enumerate(labels)]
    found = image_baselines(paths[::2], labels[::2], paths[1::2], labels[1::2], 2)
    assert (
        found["majority"]["accuracy"]["value"] == 0.6 and found["pixels_logreg"]["accuracy"]["value"] == 1.0
    )
    assert found["pixels_logreg"]["rows"] == 10
    with pytest.raises(DataError, match="test split has 0 pictures"):
        image_baselines(paths, labels, [], labels[:0], 2)


def test_one_class_only_is_the_majority(pictures):
    found = image_baselines(pictures[:2], np.array([1, 1]), pictures[2:4], np.array([1, 0]), 2)
    assert found["pixels_logreg"]["accuracy"]["value"] == 0.5
