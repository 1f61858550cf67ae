"""Sounds of every format, width, rate and number of channels become mono floats; broken ones name themselves."""

import numpy as np
import pytest

from foretune.data.images import find_broken
from foretune.data.media import BrokenMediaError
from foretune.data.sounds import probe_sound, read_sound
from foretune.errors import ConfigError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = 16_000


def tone(seconds=0.5, rate=RATE, pitch=440.0):
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def saved(folder, samples, name, rate=RATE, **options):
    path = folder / name
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 8e-3),
        ("a.wav", "PCM_16", 4e-5),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.wav", "ULAW", 2e-2),
        ("a.flac", "PCM_24", 1e-6),
        ("a.aiff", "PCM_16", 4e-5),
    ],
)
def test_widths_have_one_scale(tmp_path, name, subtype, error):
    found = read_sound(saved(tmp_path, tone(), name, subtype=subtype), RATE)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert np.abs(found - tone()).max() <= error


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.opus"])
def test_lossy_formats_are_close(tmp_path, name):
    options = {"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}
    found = read_sound(saved(tmp_path, tone(), name, **options), RATE)
    assert abs(len(found) - len(tone())) < 0.1 * RATE
    assert abs(np.sqrt((found**2).mean()) - np.sqrt((tone() ** 2).mean())) < 0.05


def test_channels_are_averaged(tmp_path):
    channels = np.stack([tone(), np.zeros_like(tone()), -0.5 * tone()], axis=1)
    found = read_sound(saved(tmp_path, channels, "a.wav", subtype="FLOAT"), RATE)
    assert found.shape == tone().shape
    assert np.allclose(found, tone() / 6, atol=1e-6)


def pitch_of(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize("own_rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_length_pitch_and_loudness(tmp_path, own_rate):
    found = read_sound(saved(tmp_path, tone(1, own_rate), "a.wav", own_rate, subtype="FLOAT"), RATE)
    assert abs(len(found) - RATE) <= 1 and found.dtype == np.float32
    assert abs(pitch_of(found, RATE) - 440) <= 1
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.03)


def test_resampling_filters_what_the_new_rate_cannot_hold(tmp_path):
    high = saved(tmp_path, tone(1, 48_000, 15_000.0), "a.wav", 48_000, subtype="FLOAT")
    assert np.abs(read_sound(high, RATE)[500:-500]).max() < 1e-3


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_part_is_the_part_of_the_whole(tmp_path, name):
    path = saved(tmp_path, np.random.default_rng(0).uniform(-1, 1, 4 * RATE), name)
    whole = read_sound(path, RATE)
    assert np.array_equal(read_sound(path, RATE, 1.5, 0.25), whole[24_000:28_000])
    assert np.array_equal(read_sound(path, RATE, 3.9, 5), whole[62_400:])
    assert np.array_equal(read_sound(path, RATE, start=1), whole[RATE:])


def test_a_part_at_another_rate_is_the_part_inside(tmp_path):
    path = saved(tmp_path, tone(2, 44_100), "a.wav", 44_100, subtype="FLOAT")
    part, whole = read_sound(path, RATE, 0.5, 1.0), read_sound(path, RATE)
    assert len(part) == RATE
    # Only the ends differ: there the filter sees silence instead of the neighbours.
    assert np.abs(part - whole[8_000:24_000])[200:-200].max() < 1e-3


def test_more_frames_than_a_block(tmp_path, monkeypatch):
    from foretune.data import sounds

    monkeypatch.setattr(sounds, "_BLOCK", 1_000)
    stereo = np.stack([tone(), tone()], axis=1)
    assert np.allclose(read_sound(saved(tmp_path, stereo, "a.wav", subtype="FLOAT"), RATE), tone(), atol=1e-7)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_probe(tmp_path, name):
    found = probe_sound(saved(tmp_path, np.zeros((22_050, 2), np.float32), name, 44_100))
    assert found.seconds == pytest.approx(0.5, abs=0.01)
    assert (found.rate, found.channels) == (44_100, 2)


# Broken files and wrong options


def broken(path, **options):
    with pytest.raises(BrokenMediaError) as caught:
        read_sound(path, RATE, **options)
    assert str(path) in str(caught.value) and caught.value.path == str(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.ogg", "a.mp3"])
def test_cut_off_files_name_themselves(tmp_path, name):
    whole = saved(tmp_path, np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE), name)
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "cut off" in broken(path)


def test_a_wav_written_into_a_pipe_has_no_length_and_is_whole(tmp_path):
    path = saved(tmp_path, tone(), "a.wav", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert np.abs(read_sound(path, RATE) - tone()).max() < 4e-5


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"words, words" * 50, "no sound"), (b"RIFF" + b"\0" * 60, "no sound")],
)
def test_no_sound_at_all(tmp_path, content, reason):
    (tmp_path / "a.wav").write_bytes(content)
    assert reason in broken(tmp_path / "a.wav")


def test_no_samples(tmp_path):
    assert "no samples" in broken(saved(tmp_path, np.zeros(0, np.float32), "a.wav"))


def test_missing_file(tmp_path):
    assert "no such file" in broken(tmp_path / "a.wav")


def test_raw_samples_without_header(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"\0" * 100)
    assert "no sound" in broken(tmp_path / "a.raw")


def test_foreign_formats_come_with_a_remedy(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + b"\0" * 50)
    assert "ffmpeg -i" in broken(tmp_path / "a.m4a")


def test_samples_that_are_no_numbers(tmp_path):
    samples = tone()
    samples[7] = np.nan
    assert "not finite" in broken(saved(tmp_path, samples, "a.wav", subtype="FLOAT"))


def test_a_start_behind_the_end(tmp_path):
    assert "lasts 0.50 seconds" in broken(saved(tmp_path, tone(), "a.wav"), start=0.5)


def test_too_long_to_read_at_once(tmp_path, monkeypatch):
    from foretune.data import sounds

    monkeypatch.setattr(sounds, "FRAME_LIMIT", 4_000)
    path = saved(tmp_path, tone(), "a.wav")
    assert "too long" in broken(path)
    assert len(read_sound(path, RATE, 0.25, 0.25)) == 4_000


@pytest.mark.parametrize(
    ("rate", "start", "seconds"), [(0, 0, None), (RATE, -1, None), (RATE, 0, 0), (RATE, 0, float("nan"))]
)
def test_impossible_options(tmp_path, rate, start, seconds):
    path = saved(tmp_path, tone(), "a.wav")
    with pytest.raises(ConfigError, match="expected"):
        read_sound(path, rate, start, seconds)


def test_broken_sounds_are_found_by_their_headers(tmp_path):
    good = str(saved(tmp_path, tone(), "good.wav"))
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    found = find_broken([good, str(tmp_path / "bad.wav")], "audio")
    assert list(found) == [str(tmp_path / "bad.wav")] and "no sound" in found[str(tmp_path / "bad.wav")]


def test_without_soundfile_the_extra_is_named(tmp_path, monkeypatch):
    from foretune.data import media

    monkeypatch.setattr(media, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'foretune\[audio\]'"):
        read_sound(tmp_path / "a.wav", RATE)
