"""Pictures varied at random for training: crops, flips, RandAugment, mixup; all chance is drawn beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ConfigError

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor

    Pixels = NDArray[np.uint8]

SIDES = (3 / 4, 4 / 3)  # width / height of a crop, as Szegedy et al. 2015, section 6
TRIES = 10  # for a crop that lies inside the picture
GREY = (124, 116, 104)  # ImageNet's mean colour: what comes into view behind the border of a turned picture
LEVELS = 10  # RandAugment's magnitudes go from 0 to this


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What chance may do to a training picture; `Augmentation()` is a crop and a flip.

    `min_area`: the least share of the picture that a crop keeps (1: no random crop); `flip`: how often left
    and right are swapped; `rand_augment`: how many operations of RandAugment (Cubuk et al. 2020), each of
    `magnitude` 0 to 10; `mixup`: the alpha of mixup (Zhang et al. 2018), 0 for none. Raises ConfigError.
    """

    min_area: float = 0.35
    flip: float = 0.5
    rand_augment: int = 0
    magnitude: float = 5.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        _within("min_area", self.min_area, 0.01, 1)
        _within("flip", self.flip, 0, 1)
        _within("magnitude", self.magnitude, 0, LEVELS)
        _within("mixup", self.mixup, 0, 10)
        if not isinstance(self.rand_augment, int) or not 0 <= self.rand_augment <= 10:
            raise ConfigError(
                f"Option rand_augment is {self.rand_augment!r}; expected a whole number from 0 (none) to 10."
            )

    @property
    def varies(self) -> bool:
        """Return whether anything is left to chance."""
        return bool(self.min_area < 1 or self.flip or self.rand_augment or self.mixup)

    def seeds(self, n: int) -> list[int]:
        """Return a seed per picture from torch's global generator, whose state checkpoints hold."""
        import torch

        return torch.randint(2**62, (n,)).tolist()

    def __call__(
        self, picture: Pixels, chance: Generator, size: tuple[int, int], interpolation: str
    ) -> Pixels:
        """Return a varied picture (height, width, 3) of an RGB picture (h, w, 3); `size`: height and width."""
        from PIL import Image

        height, width = size
        image = Image.fromarray(picture)
        box = crop_box(image.height, image.width, self.min_area, width / height, chance)
        image = image.resize((width, height), Image.Resampling[interpolation.upper()], box=box)
        if chance.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for _ in range(self.rand_augment):
            name = OPERATIONS[chance.integers(len(OPERATIONS))]
            image = operate(image, name, self.magnitude / LEVELS * chance.choice((-1, 1)))
        return np.asarray(image)

    def mixing(self, n: int) -> dict[str, Tensor]:
        """Return with whom each of n pictures is mixed, (n,), and its own share, (1,); nothing without mixup."""
        import torch

        if not self.mixup:
            return {}
        share = np.float32(np.random.beta(self.mixup, self.mixup))
        return {"mix_order": torch.randperm(n), "mix_share": torch.tensor([share])}


def _within(name: str, value: Any, low: float, high: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"Option {name} is {value!r}; expected a number from {low} to {high}.")


def crop_box(
    height: int, width: int, min_area: float, aspect: float, chance: Generator
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a random part of a picture (Szegedy et al. 2015).

    Its area is `min_area` to all of the picture's, its sides differ from `aspect` (width / height) by at most
    a third. Where no such part is found, or `min_area` is 1, the largest of that aspect in the middle.
    """
    for _ in range(TRIES if min_area < 1 else 0):
        area = chance.uniform(min_area, 1) * height * width
        ratio = aspect * math.exp(chance.uniform(*np.log(SIDES)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = chance.uniform(0, width - w), chance.uniform(0, height - h)
            return left, top, min(left + w, width), min(top + h, height)
    w, h = min(width, height * aspect), min(height, width / aspect)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


OPERATIONS = (
    "nothing", "autocontrast", "equalize", "rotate", "solarize", "posterize", "color", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "shift_x", "shift_y",
)  # fmt: skip


def operate(image: Any, name: str, strength: float) -> Any:
    """Return a Pillow image after one operation of RandAugment; `strength`: -1 to 1.

    The ranges are those of Cubuk et al. 2020 (AutoAugment's table 6 without invert): 30 degrees, a shear of
    0.3, a shift of 45 %, enhancement of 0.1 to 1.9.
    """
    from PIL import ImageEnhance, ImageOps

    if name in ("color", "contrast", "brightness", "sharpness"):
        return getattr(ImageEnhance, name.capitalize())(image).enhance(1 + 0.9 * strength)
    if name in ("autocontrast", "equalize"):
        return getattr(ImageOps, name)(image)
    if name == "solarize":
        return ImageOps.solarize(image, round(256 * (1 - abs(strength))))
    if name == "posterize":
        return ImageOps.posterize(image, 8 - round(4 * abs(strength)))
    return image if name == "nothing" else _moved(image, name, strength)


def _moved(image: Any, name: str, strength: float) -> Any:
    from PIL import Image

    how = {"resample": Image.Resampling.BILINEAR, "fillcolor": GREY}
    if name == "rotate":
        return image.rotate(30 * strength, **how)
    width, height = image.size
    rows = {
        "shear_x": (1, 0.3 * strength, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * strength, 1, 0),
        "shift_x": (1, 0, 0.45 * strength * width, 0, 1, 0),
        "shift_y": (1, 0, 0, 0, 1, 0.45 * strength * height),
    }
    return image.transform(image.size, Image.Transform.AFFINE, rows[name], **how)


def contact_sheet(
    pictures: Sequence[Any], transform: Callable[[Any], Pixels], n: int = 12, columns: int = 6
) -> bytes:
    """Return a PNG with the first `n` pictures side by side, each as `transform` gives it.

    `transform` returns (height, width, 3) uint8. Raises ConfigError where there is nothing to show.
    """
    import io

    from PIL import Image

    shown = [transform(each) for each in pictures[:n]]
    if not shown:
        raise ConfigError("A contact sheet needs at least one picture; give some and n of 1 or more.")
    height, width, _ = shown[0].shape
    lines = -(-len(shown) // columns)
    sheet = np.full((lines * height, min(columns, len(shown)) * width, 3), 255, dtype=np.uint8)
    for number, pixels in enumerate(shown):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height, left : left + width] = pixels
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()
