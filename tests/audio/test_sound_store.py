"""Sounds as a store: planned lengths, parts, keys, chance, memory; what cannot be a sound."""

import numpy as np
import pytest
import soundfile

from foretune.data.sound_augment import SoundAugmentation
from foretune.data.sound_store import Wave, build, durations, sound_digests, wave
from foretune.errors import ConfigError, DataError

RATE = 1000


def store(sounds, limit=10_000, **options):
    return build(sounds, RATE, lambda n: n // 10, limit=limit, frame=0.01, **options)


def ramp(seconds, rate=RATE):
    return Wave(np.linspace(-1, 1, round(seconds * rate), dtype=np.float32), rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("own", [8000, 11_025, 48_000])
def test_a_sound_is_exactly_as_long_as_planned(tmp_path, suffix, own):
    if suffix == "ogg" and own == 11_025:
        own = 22_050
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (own // 3, 2)).astype(np.float32), own)
    found = build([str(path)], 16_000, lambda n: n, limit=10**6, frame=1.0)
    assert len(found.waves(np.array([0]))[0]) == found.samples[0] == found.lengths[0]
    assert abs(found.samples[0] - 16_000 / 3) < 12


def test_long_sounds_are_cut_at_one_end():
    sounds = [ramp(1.0), ramp(3.0)]
    head, tail = store(sounds, limit=2000), store(sounds, limit=2000, truncation="tail")
    assert head.lengths.tolist() == tail.lengths.tolist() == [100, 200]
    whole = sounds[1].samples
    assert np.array_equal(head.waves(np.array([1]))[0], whole[:2000])
    assert np.array_equal(tail.waves(np.array([1]))[0], whole[1000:])
    assert np.array_equal(tail.waves(np.array([0]))[0], sounds[0].samples)
    assert head.cuts.sentence(200) == (
        "1 of 2 sounds (50.0%) are longer than 2.0 s; 25.0% of all sound was cut."
    )
    assert store(sounds).cuts.sentence(1000) is None


def test_part_of_a_file(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, ramp(3.0).samples, RATE, subtype="FLOAT")
    tail = store([str(path)], limit=500, truncation="tail")
    assert np.array_equal(tail.waves(np.array([0]))[0], ramp(3.0).samples[2500:])


def test_both_ends_cannot_be_kept():
    with pytest.raises(ConfigError, match="cut at one end; expected head or tail"):
        store([ramp(1.0)], truncation="head+tail")


def test_very_short_sounds_are_padded():
    found = store([ramp(0.003)], least=50)
    samples = found.waves(np.array([0]))[0]
    assert len(samples) == 50 and not samples[3:].any() and samples[0] == -1


def test_key_tells_contents_and_parts(tmp_path):
    one, copy, other = (str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav"))
    for path, scale in ((one, 0.5), (copy, 0.5), (other, 0.4)):
        soundfile.write(path, scale * ramp(1.0).samples, RATE)
    assert store([one]).key() == store([copy]).key() != store([other]).key()
    assert store([one]).key() != store([one], limit=100).key()
    assert sound_digests([one, ramp(1.0), copy])[0] == sound_digests([copy])[0]
    assert sound_digests([ramp(1.0)]) != sound_digests([ramp(1.1)])


def test_rows_come_in_the_order_asked_for():
    found = store([ramp(0.1 * (i + 1)) for i in range(20)])
    rows = np.array([7, 0, 19])
    assert [len(samples) for samples in found.waves(rows)] == [800, 100, 2000]
    assert np.allclose(durations(found.sounds), 0.1 * np.arange(1, 21))


def test_another_rate_is_resampled(make_tone):
    high = build([Wave(make_tone("low", 1.0, rate=8000), 8000)], 16_000, lambda n: n, limit=10**6, frame=1.0)
    samples = high.waves(np.array([0]))[0]
    assert len(samples) == 16_000
    assert int(np.abs(np.fft.rfft(samples)).argmax()) == 200  # Hz, as one second has one bin per hertz


@pytest.mark.parametrize(
    "value",
    [
        {"array": np.zeros(5, np.int16), "sampling_rate": 8000},
        {"array": np.zeros(0, np.float32), "sampling_rate": 8000},
        {"array": np.zeros(5, np.float32)},
    ],
)
def test_what_is_no_sound(value):
    with pytest.raises(DataError, match="expected a sound as"):
        wave(value)


def test_arrays_become_mono():
    found = wave({"array": np.array([[1.0, 0.0, -1.0], [0.0, 0.0, -1.0]]), "sampling_rate": 8000})
    assert found.samples.tolist() == [0.5, 0.0, -1.0] and found.samples.dtype == np.float32
    with pytest.raises(DataError, match="not finite"):
        wave({"array": np.array([1.0, np.nan]), "sampling_rate": 8000})


def test_chance_depends_on_the_seed_alone():
    augmentation = SoundAugmentation(shift=0.1, gain=6, time_masks=1)
    found = store([ramp(1.0), ramp(1.0)]).augmented(augmentation)
    rows = np.array([0, 1])
    first, again = found.waves(rows, [5, 6]), found.waves(rows, [5, 6])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], found.waves(np.array([0]))[0])
    assert found.varies and not store([ramp(1.0)]).augmented(SoundAugmentation()).varies


def test_seeds_come_from_the_state_that_checkpoints_hold():
    import torch

    found = store([ramp(1.0)]).augmented(SoundAugmentation(gain=3))
    torch.manual_seed(3)
    first = found.seeds(np.array([0]))
    torch.manual_seed(3)
    assert found.seeds(np.array([0])) == first and found.seeds(np.array([0])) != first
    assert store([ramp(1.0)]).seeds(np.array([0])) is None


def test_what_augmentation_does():
    samples = np.ones(1000, np.float32)
    shifted = SoundAugmentation(shift=0.2).wave(samples, RATE, 1)
    zeros = int((shifted == 0).sum())
    assert 0 < zeros <= 200 and (shifted[:zeros] == 0).all() != (shifted[-zeros:] == 0).all()
    loud = SoundAugmentation(gain=6).wave(samples, RATE, 1)
    assert np.ptp(loud) == 0 and 0.5 < loud[0] < 2.0 and loud[0] != 1
    masked = SoundAugmentation(time_masks=2).wave(samples, RATE, 4)
    assert 0 < (masked == 0).sum() <= 200
    features = np.arange(2000, dtype=np.float32).reshape(20, 100)
    SoundAugmentation(frequency_masks=2).spectrogram(features, 5)
    blanked = [row for row in range(20) if np.ptp(features[row]) == 0]
    assert 1 <= len(blanked) <= 8 and np.allclose(features[blanked], 999.5)
    assert (samples == 1).all()  # none of it in place


@pytest.mark.parametrize(
    "options",
    [{"shift": -1}, {"gain": 50}, {"time_masks": 1.5}, {"frequency_masks": True}, {"shift": "much"}],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=f"Option {next(iter(options))}"):
        SoundAugmentation(**options)
