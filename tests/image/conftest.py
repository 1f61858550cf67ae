"""Small pictures and tiny image networks, made here."""

import json

import numpy as np
import pytest

SMALL = {"test_resnet": 64, "test_vit": 32, "test_efficientnet": 64, "test_convnext": 64}


def write_picture(path, colour, *, size=(40, 56), seed=0, noise=40):
    """Write a noisy picture of one colour; the ending of `path` says in which format."""
    from PIL import Image

    chance = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + chance.integers(-noise, noise + 1, (*size, 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def paint():
    """Return `write_picture`."""
    return write_picture


@pytest.fixture
def pictures(tmp_path):
    """Six pictures of different colours and sizes."""
    return [
        write_picture(
            tmp_path / "pictures" / f"{n}.png", (40 * n, 200 - 30 * n, 90), size=(40 + n, 60 - 3 * n), seed=n
        )
        for n in range(6)
    ]


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """Return a function: architecture -> folder with its random weights, a head of 7 classes."""
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    made = {}

    def make(name):
        if name in made:
            return made[name]
        side, fixed = SMALL[name], "vit" in name
        torch.manual_seed(len(made))
        arguments = {"img_size": side} if fixed else {}
        model = timm.create_model(name, pretrained=False, num_classes=7, **arguments)
        for module in model.modules():  # as if trained: means and gains that matter
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        folder = made[name] = tmp_path_factory.mktemp(name)
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()},
            folder / "model.safetensors",
        )
        shown = {"input_size": [3, side, side], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
        own = {"fixed_input_size": fixed, "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
        classifier = model.pretrained_cfg["classifier"]
        inner = {**shown, **own, "num_classes": 7, "classifier": classifier, "first_conv": None}
        config = {"architecture": name, "num_classes": 7, "pretrained_cfg": inner}
        config |= {"model_args": arguments} if arguments else {}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make
