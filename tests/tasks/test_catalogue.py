"""Every task says what it is for and which backbone it takes."""

import pytest

from foretune.assemble import with_backbone
from foretune.backbones.catalogue import find
from foretune.errors import ConfigError
from foretune.recipe import Recipe
from foretune.tasks import import_tasks
from foretune.tasks.base import TASKS
from foretune.tasks.catalogue import TASK_INFO, default_backbone


def test_every_task_is_described():
    import_tasks()
    assert sorted(TASK_INFO) == sorted(TASKS)
    for info in TASK_INFO.values():
        assert info.data and info.about and (info.backbone or info.suggestion)
        assert info.backbone is None or find(info.backbone) or info.backbone.count("/") == 1


def test_a_task_brings_its_backbone_only_where_none_was_named():
    open_, named = {"backbone", "strategy"}, {"strategy"}
    assert with_backbone(Recipe(), "summarisation", open_).backbone == default_backbone("summarisation")
    assert with_backbone(Recipe(backbone="mine/own"), "summarisation", named).backbone == "mine/own"
    assert with_backbone(Recipe(), "text-pair", open_).backbone == "minilm-l6"
    with pytest.raises(ConfigError, match=r"--backbone, such as Helsinki"):
        with_backbone(Recipe(), "translation", open_)
