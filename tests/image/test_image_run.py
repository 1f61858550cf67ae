"""A run on pictures: it learns, and one that was stopped ends as if it had not been."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from foretune.backbones.image_load import load_image_backbone
from foretune.data.columns import Columns
from foretune.data.folders import read_folder
from foretune.data.image_augment import Augmentation
from foretune.errors import Interrupted
from foretune.recipe import Recipe
from foretune.strategies.base import Settings
from foretune.strategies.full import Full
from foretune.strategies.linear_probe import LinearProbe
from foretune.tasks.image_classification import ImageClassification
from foretune.training.checkpoint import Checkpoints
from foretune.training.events import Events
from foretune.training.feed import HEAD
from foretune.training.inference import Runtime, predict
from foretune.training.job import Job
from foretune.training.loop import Loop
from foretune.training.signals import StopRequest

pytest.importorskip("timm")
SHARED = Path(__file__).parents[3] / "shared"
COLUMNS = Columns("path", "label", "as told")
COLOURS = {"blue": (60, 60, 200), "green": (60, 180, 60), "red": (200, 60, 60)}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eighteen pictures, told apart by their colours."""
    from PIL import Image

    folder, chance, rows = tmp_path_factory.mktemp("colours"), np.random.default_rng(0), []
    for n in range(18):
        label = list(COLOURS)[n % 3]
        pixels = np.array(COLOURS[label]) + chance.integers(-50, 51, (40, 48, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{n}.png")
        rows.append((str(folder / f"{n}.png"), label))
    return pd.DataFrame(rows, columns=["path", "label"])


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny convolutions wait for a second thread longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class StopAt:
    """Ask a run to stop when it has told of a step."""

    def __init__(self, step, stop):
        self.step, self.stop, self.losses = step, stop, []

    def on(self, kind, values):
        if kind == "step":
            self.losses.append(values["loss"])
            self.stop.requested = values["step"] == self.step

    def close(self):
        pass


def job_of(table, folder, network, strategy, settings, augmentation, listener):
    recipe = Recipe(seed=0, checkpoint_seconds=1e9, micro_tokens=3)
    task = ImageClassification.from_table(table, COLUMNS, recipe)
    task.augmentation = augmentation
    backbone = load_image_backbone(str(network), options=task.model_options(), offline=True)
    train = task.examples(table, where="train")
    strategy.prepare(backbone)
    sets = [
        task.encode(backbone, train, max_length=1, truncation="tail", training=training)
        for training in (strategy.augments, False)
    ]
    return Job(
        backbone=backbone, task=task, strategy=strategy, settings=settings, recipe=recipe, train=train,
        train_set=sets[0], dev=train, dev_set=sets[1], metric="accuracy", folder=folder, identity="",
        events=Events([listener]), runtime=Runtime(torch.device("cpu"), "fp32"),
    )  # fmt: skip


def run(
    table, folder, network, *, stop_at=0, resume=False, strategy=Full, augmentation=None, lr=1e-3, epochs=3
):
    stop = StopRequest()
    listener = StopAt(stop_at, stop)
    settings = Settings(lr=lr, epochs=epochs, batch_tokens=6)
    job = job_of(table, folder, network, strategy(), settings, augmentation or Augmentation(), listener)
    loop = Loop(job, stop, Checkpoints(job.checkpoints_folder).newest() if resume else None)
    try:
        loop.run()
    except Interrupted:
        assert stop_at
    return job, loop, listener.losses


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_stopped_run_ends_with_the_same_bits(table, network, tmp_path, name):
    augmentation = Augmentation(rand_augment=1, mixup=0.3)
    whole, _, losses = run(table, tmp_path / "whole", network(name), augmentation=augmentation)
    for step, resume in ((2, False), (7, True), (0, True)):
        parts, _, told = run(
            table, tmp_path / "parts", network(name), stop_at=step, resume=resume, augmentation=augmentation
        )
    assert told == losses[-len(told) :] and 0 < len(told) < len(losses) and len(set(losses)) == len(losses)
    expected = whole.backbone.model.state_dict()
    for key, value in parts.backbone.model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def accuracy(job):
    scores = job.task.scores(job.dev, job.dev_set)
    for rows, outputs in predict(job.backbone, job.task, job.dev_set.store, job.runtime):
        scores.update(outputs, job.dev_set.targets[rows], rows)
    return scores.point()["accuracy"]


@pytest.mark.slow
def test_a_network_learns_colours(table, network, tmp_path):
    job, loop, losses = run(table, tmp_path, network("test_resnet"), lr=5e-3, epochs=10)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert accuracy(job) >= 0.9 and loop.starts == [0]


def test_the_probe_runs_on_cached_features(table, network, tmp_path):
    job, loop, _ = run(table, tmp_path, network("test_vit"), strategy=LinearProbe, lr=1e-2, epochs=40)
    before = load_image_backbone(str(network("test_vit")), options=job.task.model_options(), offline=True)
    head = set(job.backbone.layers.head())
    assert loop.starts == [HEAD] and not job.train_store.varies and accuracy(job) >= 0.9
    for name, parameter in job.backbone.model.named_parameters():
        assert torch.equal(parameter, before.model.get_parameter(name)) is (name not in head), name


@pytest.mark.slow
def test_ants_and_bees(tmp_path):
    """ResNet-18's probe tells ants from bees (the recorded number is 97 %)."""
    data, weights = SHARED / "data" / "image" / "hymenoptera", SHARED / "weights" / "resnet18-imagenet"
    if not (data.is_dir() and weights.is_dir()):
        pytest.skip("needs image/hymenoptera in shared/data and resnet18-imagenet in shared/weights")
    table = read_folder(data, "train")
    settings, stop = Settings(lr=1e-3, epochs=30, batch_tokens=32), StopRequest()
    job = job_of(table, tmp_path, weights, LinearProbe(), settings, Augmentation(), StopAt(0, stop))
    Loop(job, stop, None).run()
    held_out = job.task.examples(read_folder(data, "val"), where="test")
    encoded = job.task.encode(job.backbone, held_out, max_length=1, truncation="tail")
    scores = job.task.scores(held_out, encoded)
    for rows, outputs in predict(job.backbone, job.task, encoded.store, job.runtime, 32):
        scores.update(outputs, encoded.targets[rows], rows)
    assert scores.point()["accuracy"] >= 0.93
