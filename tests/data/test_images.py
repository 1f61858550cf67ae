"""Pictures of every odd kind become upright 8-bit RGB; broken ones name themselves."""

import io
import struct
import zlib

import numpy as np
import pytest

from foretune.data.images import find_broken, image_sizes, open_image, probe_image
from foretune.data.media import BrokenMediaError
from foretune.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")

RAMP = np.linspace(0, 255, 24 * 16).reshape(16, 24).astype(np.uint8)  # (height, width)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


def saved(folder, picture, name, **options):
    path = folder / name
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    found = open_image(saved(tmp_path, COLOUR, f"a.{suffix}"))
    assert found.dtype == np.uint8 and found.flags.writeable
    assert np.array_equal(found, COLOUR)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
def test_lossy_formats_are_close(tmp_path, suffix):
    found = open_image(saved(tmp_path, np.stack([RAMP] * 3, axis=2), f"a.{suffix}"))
    assert found.shape == COLOUR.shape
    assert np.abs(found.astype(int) - RAMP[:, :, None]).mean() < 4


def test_grey_becomes_three_equal_channels(tmp_path):
    assert np.array_equal(open_image(saved(tmp_path, RAMP, "a.png")), np.stack([RAMP] * 3, axis=2))


def test_black_and_white(tmp_path):
    picture = Image.fromarray(RAMP > 100)
    assert np.array_equal(
        open_image(saved(tmp_path, picture, "a.png"))[:, :, 0], np.where(RAMP > 100, 255, 0)
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65_535, RAMP.size).reshape(RAMP.shape).astype(np.uint16)
    found = open_image(saved(tmp_path, values, f"a.{suffix}"))
    assert np.abs(found[:, :, 1].astype(int) - RAMP).max() <= 1 and found.max() == 255


def test_16_bits_that_are_dark_stay_dark(tmp_path):
    found = open_image(saved(tmp_path, np.full((4, 4), 2_570, np.uint16), "a.png"))
    assert (found == 10).all()


def test_floats_between_0_and_1(tmp_path):
    values = np.array([[0.0, 0.5], [0.25, 0.75]], np.float32)
    assert open_image(saved(tmp_path, values, "a.tif"))[:, :, 0].tolist() == [[0, 128], [64, 191]]


def test_other_floats_are_spread(tmp_path):
    values = np.array([[-1000.0, 1000.0], [0.0, np.nan]], np.float32)
    assert open_image(saved(tmp_path, values, "a.tif"))[:, :, 0].tolist() == [[0, 255], [128, 128]]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (51, 212)])
def test_transparent_pictures_stand_on_white(tmp_path, alpha, expected):
    rgba = np.full((3, 5, 4), 40, np.uint8)
    rgba[:, :, 3] = alpha
    assert np.abs(open_image(saved(tmp_path, rgba, "a.png")).astype(int) - expected).max() <= 1


def test_grey_with_alpha_and_palette_with_a_transparent_colour(tmp_path):
    grey = Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (24, 16), 0)])
    assert (open_image(saved(tmp_path, grey, "grey.png")) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    assert (open_image(saved(tmp_path, palette, "p.png")) == (200, 10, 10)).all()
    assert (open_image(saved(tmp_path, palette, "t.png", transparency=1)) == 255).all()


def test_cmyk(tmp_path):
    found = open_image(saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg", quality=95))
    assert found.shape == (16, 16, 3)
    assert (found[:, :, 0] > 240).all() and (found[:, :, 1:] < 15).all()


def test_animations_give_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (open_image(tmp_path / name) == (255, 0, 0)).all(), name


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("turn", list(UPRIGHT))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_rotation(tmp_path, suffix, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = saved(tmp_path, COLOUR, f"a.{suffix}", exif=exif, **options)
    expected = UPRIGHT[turn](COLOUR)
    assert np.array_equal(open_image(path), expected)
    assert probe_image(path) == expected.shape[1::-1]


@pytest.mark.parametrize("turn", [0, 9, 77])
def test_nonsense_exif_is_passed_over(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    assert open_image(saved(tmp_path, COLOUR, "a.jpg", exif=exif)).shape == COLOUR.shape


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_spoil_the_picture(tmp_path):
    path = saved(tmp_path, COLOUR, "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_image(path).shape == COLOUR.shape and probe_image(path) == (24, 16)


def test_large_jpegs_are_decoded_smaller_on_request(tmp_path):
    path = saved(tmp_path, np.kron(COLOUR, np.ones((20, 20, 1), np.uint8)), "a.jpg")
    assert open_image(path).shape == (320, 480, 3)
    small = open_image(path, shortest=64)
    assert small.shape == (80, 120, 3)
    assert abs(small.mean() - open_image(path).mean()) < 2


# Broken and dangerous files


def broken(path, **options):
    with pytest.raises(BrokenMediaError) as caught:
        open_image(path, **options)
    assert isinstance(caught.value, DataError) and str(path) in str(caught.value)
    assert caught.value.path == str(path)
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_files_name_themselves(tmp_path, suffix, share):
    whole = saved(tmp_path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), f"w.{suffix}")
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert broken(path)


def test_damaged_pixels(tmp_path):
    path = saved(tmp_path, COLOUR, "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "damaged or cut off" in broken(path)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"no picture", "unknown format")])
def test_no_picture_at_all(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason in broken(tmp_path / "a.jpg")


def test_missing_file(tmp_path):
    assert broken(tmp_path / "nowhere.jpg") == "no such file"


def test_foreign_formats_come_with_a_remedy(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    with pytest.raises(BrokenMediaError, match="Convert such files first: magick"):
        open_image(tmp_path / "a.heic")


def test_postscript_is_never_handed_to_another_program(tmp_path):
    path = saved(tmp_path, COLOUR, "a.eps")
    path.rename(tmp_path / "a.png")
    assert "unknown format" in broken(tmp_path / "a.png")


def bomb(path, width, height):
    """Write a PNG of a few bytes that claims width x height pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10_001, 60_000])
def test_bombs_are_refused_before_decoding(tmp_path, side):
    bomb(tmp_path / "a.png", side, side)
    assert "decompression bomb" in broken(tmp_path / "a.png")
    with pytest.raises(BrokenMediaError, match="decompression bomb"):
        probe_image(tmp_path / "a.png")


def test_the_limit_is_in_pixels(tmp_path):
    path = saved(tmp_path, COLOUR, "a.png")
    assert open_image(path, COLOUR.size // 3).shape == COLOUR.shape
    assert "24 x 16 pixels, more than the limit of 383" in broken(path, size_limit=COLOUR.size // 3 - 1)


def test_sizes_and_broken_ones(tmp_path):
    good = [str(saved(tmp_path, np.zeros((h, 3 * h), np.uint8), f"{h}.png")) for h in range(1, 30)]
    assert image_sizes(good).tolist() == [[3 * h, h] for h in range(1, 30)]
    assert image_sizes([]).shape == (0, 2)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    bad = [str(tmp_path / "bad.jpg"), str(tmp_path / "gone.png")]
    found = find_broken([good[0], *bad, good[1]])
    assert list(found) == bad and found[bad[1]] == "no such file"
    with pytest.raises(BrokenMediaError, match=r"bad\.jpg"):
        image_sizes(good + bad)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    from foretune.data import images, media

    images._formats.cache_clear()
    monkeypatch.setattr(media, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'foretune\[image\]'"):
        open_image(tmp_path / "a.png")


def test_probing_reads_the_header_only(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "png")
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:60])
    assert probe_image(tmp_path / "a.png") == (24, 16)
    assert broken(tmp_path / "a.png")
