"""Plain timm, torchvision and transformers scripts for pictures and sounds.

See `peer_text` for what the functions take and return. No script in common use trains FCOS on a trunk of timm, so
detection is torchvision's own FCOS with its ResNet-18 and the same weights; segmentation is timm's features under
the simplest pyramid, with the rate of the CamVid example of segmentation_models.pytorch.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from peer_text import Result
from task_scores import mask_files, read

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
WIDTH = 128  # channels of the pyramid


class Files:
    """A data set of (transformed picture, number) for torch's DataLoader."""

    def __init__(self, paths: list[str], numbers: list[int], transform: Any) -> None:
        self.paths, self.numbers, self.transform = paths, numbers, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.open(self.paths[row]).convert("RGB")), self.numbers[row]


def _classes(job: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    tables = {part: read(job[part]) for part in ("train", "test")}
    return tables, sorted(tables["train"]["label"].unique())


def pictures(job: dict[str, Any]) -> Result:
    """Classify pictures: `timm.create_model`, timm's transforms, AdamW, a cosine, as in timm's documentation."""
    import timm
    import torch

    torch.manual_seed(job["seed"])
    tables, names = _classes(job)
    model = timm.create_model(f"local-dir:{job['backbone']}", pretrained=True, num_classes=len(names))
    config = timm.data.resolve_model_data_config(model)
    data = {
        part: Files(
            rows["path"].tolist(),
            [names.index(label) for label in rows["label"]],
            timm.data.create_transform(**config, is_training=part == "train"),
        )
        for part, rows in tables.items()
    }
    loader = torch.utils.data.DataLoader(data["train"], batch_size=job["batch"], shuffle=True)

    def loss(batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    seconds = fit(model, loader, loss, torch.optim.AdamW(model.parameters(), lr=job["rate"]), job["epochs"])
    found: list[dict[str, Any]] = []
    with torch.no_grad():
        for batch, _ in torch.utils.data.DataLoader(data["test"], batch_size=job["batch"]):
            found += [{"label": names[i]} for i in model(batch).argmax(-1).tolist()]
    return found, seconds


def fit(model: Any, loader: Any, loss: Any, optimizer: Any, epochs: float) -> float:
    """Train with a cosine to zero; leave the model in evaluation mode; return the seconds."""
    import torch

    start = time.perf_counter()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(epochs) * len(loader))
    model.train()
    for _ in range(int(epochs)):
        for batch in loader:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return time.perf_counter() - start


def probe_pictures(job: dict[str, Any]) -> Result:
    """Classify pictures: timm's features, computed once, under scikit-learn's logistic regression."""
    import timm
    import torch

    tables, _ = _classes(job)
    model = timm.create_model(f"local-dir:{job['backbone']}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    start = time.perf_counter()
    found = {}
    with torch.no_grad():
        for part, rows in tables.items():
            data = Files(rows["path"].tolist(), [0] * len(rows), transform)
            loader = torch.utils.data.DataLoader(data, batch_size=job["batch"])
            found[part] = torch.cat([model(batch) for batch, _ in loader]).numpy()
    return _regression(found, tables), time.perf_counter() - start


def probe_sounds(job: dict[str, Any]) -> Result:
    """Classify sounds: the mean of Whisper's encoder over its 30 seconds, under logistic regression."""
    import torch
    import transformers

    from peer_writing import features

    tables, _ = _classes(job)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(job["backbone"])
    encoder = transformers.WhisperModel.from_pretrained(job["backbone"], dtype="float32").encoder.eval()
    start = time.perf_counter()
    found = {}
    with torch.no_grad():
        for part, rows in tables.items():
            heard = torch.as_tensor(np.stack(features(extractor, rows["path"].tolist())))
            parts = [encoder(batch).last_hidden_state.mean(1) for batch in heard.split(job["batch"])]
            found[part] = torch.cat(parts).numpy()
    return _regression(found, tables), time.perf_counter() - start


def _regression(features: dict[str, np.ndarray], tables: dict[str, Any]) -> list[dict[str, Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features["train"], tables["train"]["label"])
    return [{"label": str(label)} for label in model.predict(features["test"])]


def segmentation(job: dict[str, Any]) -> Result:
    """Give every pixel a class: timm's features, a pyramid of sums, one convolution; flipped pictures; Adam."""
    import timm
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(job["seed"])
    folder = Path(job["train"])
    known = json.loads((folder / "classes.json").read_text("utf-8"))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = timm.create_model(
                f"local-dir:{job['backbone']}", pretrained=True, features_only=True
            )
            self.sides = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in self.trunk.feature_info.channels())
            self.head = nn.Sequential(
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, len(known["classes"]), 1)
            )

        def forward(self, images: Any) -> Any:
            levels = [side(level) for side, level in zip(self.sides, self.trunk(images), strict=True)]
            merged = levels[-1]
            for level in reversed(levels[1:-1]):
                merged = level + functional.interpolate(merged, level.shape[-2:], mode="bilinear")
            return functional.interpolate(self.head(merged), images.shape[-2:], mode="bilinear")

    model = Network()
    images, targets = scenes(folder, "train")
    order = torch.utils.data.TensorDataset(images, targets)
    loader = torch.utils.data.DataLoader(order, batch_size=job["batch"], shuffle=True)

    def loss(batch: Any) -> Any:
        dims = [-1] if torch.rand(()) < 0.5 else []
        views, truth = (torch.flip(part, dims) if dims else part for part in batch)
        return functional.cross_entropy(model(views), truth, ignore_index=known["ignore_id"])

    seconds = fit(model, loader, loss, torch.optim.Adam(model.parameters(), lr=job["rate"]), job["epochs"])
    model.eval()
    with torch.no_grad():
        found = [model(image[None])[0].argmax(0).numpy() for image in scenes(folder, "test")[0]]
    return [{"mask": mask} for mask in found], seconds


def scenes(folder: Path, part: str) -> tuple[Any, Any]:
    """Return normalised pictures (n, 3, height, width) and masks (n, height, width) of one size."""
    import torch
    from PIL import Image

    pictures = [np.asarray(Image.open(f).convert("RGB")) for f in mask_files(folder, part, "images")]
    masks = [np.asarray(Image.open(f)).astype(np.int64) for f in mask_files(folder, part)]
    scaled = (np.stack(pictures) / 255 - MEAN) / STD
    return torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32), torch.tensor(np.stack(masks))


def detection(job: dict[str, Any]) -> Result:
    """Find boxes: torchvision's FCOS on ResNet-18 with the given weights, SGD as in torchvision's tutorial."""
    import torch
    from torchvision.models.detection import FCOS
    from torchvision.transforms.functional import hflip

    torch.manual_seed(job["seed"])
    train, test = (json.loads(Path(job[part]).read_text("utf-8")) for part in ("train", "test"))
    names = [each["name"] for each in train["categories"]]
    model = FCOS(trunk(job["backbone"]), len(names), min_size=job["side"] * 3 // 4, max_size=job["side"])
    data = list(zip([picture(image) for image in train["images"]], boxes(train), strict=True))
    loader = torch.utils.data.DataLoader(data, batch_size=job["batch"], shuffle=True, collate_fn=list)

    def loss(batch: list[Any]) -> Any:
        views = []
        for image, target in batch:
            if torch.rand(()) < 0.5:
                width = image.shape[-1]
                corners = target["boxes"]
                turned = torch.stack(
                    [width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], 1
                )
                image, target = hflip(image), {**target, "boxes": turned}
            views.append((image, target))
        return sum(model([image for image, _ in views], [target for _, target in views]).values())

    optimizer = torch.optim.SGD(model.parameters(), lr=job["rate"], momentum=0.9, weight_decay=5e-4)
    seconds = fit(model, loader, loss, optimizer, job["epochs"])
    with torch.no_grad():
        outputs = [model([picture(image)])[0] for image in test["images"]]
    return [{"boxes": _listed(output, names)} for output in outputs], seconds


def trunk(folder: str) -> Any:
    """Return torchvision's pyramid on ResNet-18 with the weights of timm's, whose names are the same."""
    from safetensors.torch import load_file
    from torchvision.models import resnet18
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    network = resnet18()
    weights = {name: value.float() for name, value in load_file(Path(folder) / "model.safetensors").items()}
    network.load_state_dict(weights, strict=True)
    return _resnet_fpn_extractor(network, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))


def picture(image: dict[str, Any]) -> Any:
    """Return a COCO picture as a tensor (3, height, width) from 0 to 1."""
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    return to_tensor(Image.open(image["file_name"]).convert("RGB"))


def boxes(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every picture's boxes as corners and their classes' numbers."""
    import torch

    numbers = {each["id"]: number for number, each in enumerate(content["categories"])}
    own: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        own[each["image_id"]].append(([x, y, x + width, y + height], numbers[each["category_id"]]))
    return [
        {
            "boxes": torch.tensor([corners for corners, _ in found], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([number for _, number in found], dtype=torch.int64),
        }
        for found in own.values()
    ]


def _listed(output: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    found = zip(output["boxes"].tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True)
    return [
        {"label": names[number], "score": score, "box": [x, y, right - x, bottom - y]}
        for (x, y, right, bottom), number, score in found
    ]
