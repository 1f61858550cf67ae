"""Zero-shot: no training; the classifier is made of the embeddings of the label names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import BackboneError, ConfigError, did_you_mean
from foretune.strategies.base import STRATEGIES, Phase, Settings, Strategy, Workload

if TYPE_CHECKING:
    from torch import Tensor

    from foretune.backbones.base import Backbone
    from foretune.recipe import Recipe

SHARPNESS = 20.0  # logit of a cosine of 1, as in sentence-transformers' losses (Reimers and Gurevych 2019)
LONGEST = 64  # tokens read of a label's description


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions:
    """How label names become texts.

    `template`: the text around a name, with {} in its place. `descriptions`: label -> words that say what it means,
    in the name's place.
    """

    template: str = "{}"
    descriptions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or self.template.count("{}") != 1:
            raise ConfigError(
                f"Option template is {self.template!r}; expected a text with one {{}} for the label."
            )
        if not isinstance(self.descriptions, dict):
            raise ConfigError("Option descriptions: expected a table, such as {refund = 'wants money back'}.")


@STRATEGIES.register("zero-shot")
class ZeroShot(Strategy):
    """Compare each text's embedding with those of the labels' names (Yin et al. 2019, the embedding approach).

    A label's row of the classifier is its embedding at unit length, so the saved model is an ordinary classifier.
    """

    name = "zero-shot"
    about = "no training and no labels: texts are compared with the label names; for a first answer"
    needs_targets = False
    planned = False
    Options = ZeroShotOptions

    def defaults(self, workload: Workload) -> Settings:
        """Return settings of no training at all."""
        return Settings(lr=0.0, epochs=0.0, batch_tokens=4096)

    def prepare(self, backbone: Backbone) -> list[str]:
        """Write the label names' embeddings into the classifier. Raises BackboneError for a head of another kind."""
        import torch

        names = backbone.label_names()
        if not names:
            raise ConfigError("zero-shot is for tasks with label names, such as text-classification.")
        texts = self._texts(names)
        pooled = backbone.use_mean_pooling()
        parameters, _ = backbone.linear_head()
        weight = next((p for p in parameters if p.ndim == 2), None)
        if weight is None or not backbone.linear:
            raise BackboneError(
                f"{backbone.name} has no linear head for zero-shot. Choose another --backbone."
            )
        store = backbone.preprocess(texts, max_length=min(LONGEST, backbone.max_length), truncation="head")
        backbone.model.eval()
        with torch.no_grad():
            features = backbone.features(backbone.collate(store, np.arange(len(texts))))
            assert features is not None
            self._write(parameters, weight, features)
        for parameter in backbone.model.parameters():
            parameter.requires_grad_(False)
        note = f"{backbone.name} has no place for mean pooling; its own head's features are compared."
        return [
            "Nothing is trained: texts are compared with the names of the labels.",
            *([] if pooled else [note]),
        ]

    def _texts(self, names: tuple[str, ...]) -> list[str]:
        for name in self.options.descriptions:
            if name not in names:
                raise ConfigError(
                    f"Option descriptions names {name!r}, which is no label.{did_you_mean(name, names)}"
                )
        said = [
            self.options.descriptions.get(name, name.replace("_", " ").replace("-", " ")) for name in names
        ]
        return [self.options.template.replace("{}", words) for words in said]

    @staticmethod
    def _write(parameters: list, weight: Tensor, features: Tensor) -> None:
        """Set the classifier: rows are the features (labels, hidden) at unit length, the bias is 0."""
        import torch

        size = features.norm(dim=1).mean()
        weight.copy_(torch.nn.functional.normalize(features, dim=1) * SHARPNESS / size)
        for parameter in parameters:
            if parameter is not weight:
                parameter.zero_()

    def phases(self, backbone: Backbone, settings: Settings, recipe: Recipe) -> list[Phase]:
        """Return none."""
        return []
