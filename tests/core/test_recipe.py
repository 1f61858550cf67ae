"""The recipe: TOML there and back, wrong types, unknown names, every bound."""

import dataclasses
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ConfigError
from foretune.recipe import DEVICES, PRECISIONS, TRACKERS, TRUNCATIONS, Recipe

TEXT = st.text(max_size=20) | st.sampled_from(
    ["中文 标签", 'a "b" \\ c', "\x7f", "\x00\x1f", "a.b", "", "=", "#", "\u2028"]
)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
SHARE = st.floats(0, 0.95)
PLAIN = TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
VALUE = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
OPTIONAL = {
    "text": TEXT, "target": TEXT, "separator": TEXT, "epochs": POSITIVE, "lr": POSITIVE, "metric": TEXT,
    "layer_decay": st.floats(0, 1), "batch_tokens": st.integers(1, 10**9), "max_tokens": st.integers(1, 10**6),
}  # fmt: skip
RECIPES = st.builds(
    Recipe,
    **{name: st.none() | values for name, values in OPTIONAL.items()},
    backbone=TEXT, warmup=SHARE, clip_norm=POSITIVE, seed=st.integers(0, 2**62), dev_fraction=SHARE,
    truncation=st.sampled_from(TRUNCATIONS), precision=st.sampled_from(PRECISIONS), offline=st.booleans(),
    device=st.sampled_from(DEVICES), trackers=st.lists(st.sampled_from(TRACKERS)).map(tuple),
    class_weights=st.sampled_from(["none", "auto"]) | st.dictionaries(TEXT, POSITIVE, min_size=1, max_size=4),
    options=st.dictionaries(TEXT, VALUE, max_size=4),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(RECIPES)
def test_toml_there_and_back(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert recipe.with_changes() == recipe


def test_a_file_there_and_back(tmp_path):
    recipe = Recipe(
        text="正文", class_weights={"好": 2.0, 'so "so"': 1.0}, options={"pooling": "mean"}, lr=1e-5
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.read(path) == recipe
    assert tomllib.loads(path.read_text("utf-8"))["options"] == {"pooling": "mean"}


def test_defaults_are_read_from_nothing():
    assert Recipe.from_toml("") == Recipe() == Recipe.from_toml(Recipe().to_toml())


WRONG = [
    ("epochs", "three"), ("epochs", True), ("lr", [1e-3]), ("batch_tokens", 3.5), ("max_tokens", "9"), ("seed", 1.5),
    ("offline", 1), ("offline", "yes"), ("backbone", 3), ("backbone", None), ("trackers", "mlflow"), ("trackers", 3),
    ("options", "x"), ("options", [1]), ("class_weights", 3), ("class_weights", None), ("text", 5), ("warmup", None),
    ("metric", 3), ("patience", "3"), ("trackers", [3]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_types_are_named(name, value):
    with pytest.raises(ConfigError, match=name.rstrip("s")):
        Recipe().with_changes(**{name: value})
    with pytest.raises(ConfigError, match=name.rstrip("s")):
        Recipe(**{name: value})


def test_wrong_types_are_told_in_words():
    with pytest.raises(ConfigError, match=r"epochs = 'three' is of the wrong type; expected a number\.$"):
        Recipe(epochs="three")
    with pytest.raises(ConfigError, match=r"expected text or a table\.$"):
        Recipe(class_weights=3)


ABOVE = dict.fromkeys(("epochs", "lr", "clip_norm"), (1, 1e-12, 0, -1))
ABOVE |= dict.fromkeys(("batch_tokens", "micro_tokens", "max_tokens"), (1, 4096, 0, -1))
ABOVE |= dict.fromkeys(("seed", "patience"), (0, 3, -1, -1))
ABOVE |= {name: (0.0, 1e3, -1e-9, float("inf")) for name in ("weight_decay", "checkpoint_seconds")}
ABOVE |= dict.fromkeys(("warmup", "dropout", "dev_fraction", "test_fraction"), (0.0, 0.95, 0.951, -0.001))
ABOVE |= {"layer_decay": (0.0, 1.0, 1.001, -0.001)}


@pytest.mark.parametrize("name", ABOVE)
def test_every_bound(name):
    fine, also, wrong, wrong_too = ABOVE[name]
    for value in (fine, also):
        assert getattr(Recipe(**{name: value}), name) == value
    numbers = [wrong, wrong_too]
    if "float" in str(Recipe.__dataclass_fields__[name].type):
        numbers += [float("nan"), float("inf"), float("-inf")]
    for value in numbers:
        with pytest.raises(ConfigError, match=name):
            Recipe(**{name: value})


CHOICES = [
    ("precision", "fp16", "fp32"), ("device", "gpu", "one of auto, cpu"), ("truncation", "headtail", "head"),
    ("class_weights", "balanced", "none, auto"), ("trackers", ["tensorbord"], "Did you mean 'tensorboard'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "hint"), CHOICES)
def test_choices_are_listed(name, value, hint):
    with pytest.raises(ConfigError, match=hint):
        Recipe().with_changes(**{name: value})


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1.0}, {"a": float("nan")}, {"a": "1"}, {"a": True}])
def test_class_weights_are_positive_numbers(weights):
    with pytest.raises(ConfigError, match="class"):
        Recipe(class_weights=weights)


def test_numbers_as_labels_can_be_written():
    again = Recipe.from_toml(Recipe(class_weights={0: 1.0, 1: 2.0}).to_toml())
    assert again.class_weights == {"0": 1.0, "1": 2.0}


def test_numpy_numbers_are_numbers():
    recipe = Recipe(lr=np.float32(0.5), seed=np.int64(3), epochs=np.int32(2), batch_tokens=np.int16(9))
    assert (recipe.lr, recipe.seed, recipe.epochs, recipe.batch_tokens) == (0.5, 3, 2.0, 9)
    assert [type(getattr(recipe, n)) for n in ("lr", "seed", "epochs", "batch_tokens")] == [
        float,
        int,
        float,
        int,
    ]
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_class_weights_may_be_numpy_numbers():
    recipe = Recipe(class_weights={"a": np.int64(2), "b": np.float32(0.5)})
    assert recipe.class_weights == {"a": 2, "b": 0.5}
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_recipe_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "quick.toml").write_text("epochs = 2", encoding="utf-8-sig")
    assert Recipe.read(tmp_path / "quick.toml").epochs == 2


def test_options_that_toml_has_no_word_for():
    assert Recipe.from_toml(Recipe(options={"rank": None, "a": 1}).to_toml()).options == {"a": 1}
    with pytest.raises(ConfigError, match="cannot be written"):
        Recipe(options={"a": object()}).to_toml()


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"Unknown entry 'epoch' in recipe. Did you mean 'epochs'\?"):
        Recipe().with_changes(epoch=3)
    with pytest.raises(ConfigError, match=r"Unknown entry 'learning_rate' in my.toml"):
        Recipe.from_toml("learning_rate = 3", where="my.toml")


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.read(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("lr = = 3")
    with pytest.raises(ConfigError, match=r"broken.toml is not valid TOML.*line 1"):
        Recipe.read(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes("text = 'Größe'".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        Recipe.read(tmp_path / "latin.toml")


def test_a_recipe_does_not_change():
    recipe = Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 3.0
    changed = recipe.with_changes(lr=3)
    assert recipe.lr is None and changed.lr == 3.0 and isinstance(changed.lr, float)
