"""How many sounds a step reads."""

import pytest

from foretune.strategies.base import Settings, Workload
from foretune.tasks.audio_classification import MOST_FRAMES, several

FRAMES = 330  # of a sound of 6.6 seconds that Whisper reads


@pytest.mark.parametrize(
    ("examples", "sounds"), ((8, 4), (30, 7), (45, 11), (64, 16), (300, 16), (100_000, 16))
)
def test_small_sets_get_small_batches(examples, sounds):
    settings = Settings(lr=1e-4, epochs=5, batch_tokens=512)
    found = several(settings, Workload(examples, examples * FRAMES, 0, "frames"))
    assert found.batch_tokens == sounds * FRAMES
    assert (found.lr, found.epochs) == (settings.lr, settings.epochs)


def test_a_strategys_larger_batch_is_kept():
    settings = Settings(lr=1e-3, epochs=30, batch_tokens=4096)
    assert several(settings, Workload(30, 30 * 100, 2, "frames")) == settings


def test_long_sounds_stay_within_the_frames_of_a_step():
    settings = Settings(lr=1e-4, epochs=5, batch_tokens=512)
    assert several(settings, Workload(300, 300 * 1500, 2, "frames")).batch_tokens == MOST_FRAMES


def test_no_sounds_at_all():
    settings = Settings(lr=1e-4, epochs=5, batch_tokens=512)
    assert several(settings, Workload(0, 0, 2, "frames")) == settings
