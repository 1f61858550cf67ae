"""Options of how texts are written, and what they become in transformers."""

import pandas as pd
import pytest

from foretune.backbones.writing import Generation
from foretune.data.columns import Columns
from foretune.errors import ConfigError
from foretune.recipe import Recipe
from foretune.tasks.seq2seq import Seq2SeqOptions
from foretune.tasks.text_generation import TextGeneration, TextGenerationOptions

WRONG = [
    ({"num_beams": 0}, "num_beams is 0"),
    ({"num_beams": 1.5}, "num_beams is 1.5"),
    ({"max_new_tokens": -1}, "max_new_tokens is -1"),
    ({"no_repeat_ngram_size": True}, "no_repeat_ngram_size is True"),
    ({"temperature": -0.1}, "temperature is -0.1"),
    ({"temperature": float("inf")}, "temperature is inf"),
    ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0"),
    ({"top_p": 0.5}, "set temperature too"),
]


@pytest.mark.parametrize(("options", "found"), WRONG)
def test_wrong_options_are_refused(options, found):
    with pytest.raises(ConfigError, match=found):
        Generation(**options)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"prefix": 3}, "prefix is 3"),
        ({"max_target_tokens": -2}, "max_target_tokens is -2"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_wrong_options_of_sources_and_targets_are_refused(options, found):
    with pytest.raises(ConfigError, match=found):
        Seq2SeqOptions(**options)


def test_chat_is_a_switch():
    with pytest.raises(ConfigError, match="chat is 'yes'"):
        TextGenerationOptions(chat="yes")


def test_a_temperature_of_0_is_enough_to_switch_drawing_off():
    found = TextGenerationOptions(temperature=0.0, num_beams=2)
    assert found.settings() == {"do_sample": False, "num_beams": 2}
    assert TextGenerationOptions().settings()["top_p"] == 0.95
    with pytest.raises(ConfigError, match="set temperature too"):
        TextGenerationOptions(temperature=0.0, top_p=0.5)


def test_beams_that_drawing_would_ignore_are_refused():
    table = pd.DataFrame({"text": ["one two", "three four"]})
    columns = Columns("text", None, "")
    with pytest.raises(ConfigError, match=r"num_beams is 4.*temperature=0"):
        TextGeneration.from_table(table, columns, Recipe(options={"num_beams": 4}))
    options = {"num_beams": 4, "temperature": 0}
    assert TextGeneration.from_table(table, columns, Recipe(options=options)).options.beams == 4


def test_beams_and_drawing_exclude_each_other():
    assert Generation(num_beams=5).settings() == {"do_sample": False, "num_beams": 5}
    drawn = Generation(num_beams=5, temperature=0.7, top_p=0.9)
    assert drawn.beams == 1
    assert drawn.settings() == {
        "do_sample": True, "num_beams": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 0
    }  # fmt: skip


def test_an_unset_ngram_size_leaves_the_models_own():
    assert "no_repeat_ngram_size" not in Generation().settings()
    assert Generation(no_repeat_ngram_size=3).settings()["no_repeat_ngram_size"] == 3


@pytest.mark.parametrize("rows", [1, 3])
def test_losses_are_the_same_a_few_rows_at_a_time(monkeypatch, rows):
    import torch

    from foretune.backbones import writing

    torch.manual_seed(0)
    logits, labels = torch.randn(7, 5, 11), torch.randint(0, 11, (7, 5))
    labels[2, 3:] = -100
    whole = writing.summed_losses(logits, labels)
    monkeypatch.setattr(writing, "CHUNK", rows * 5 * 11)
    assert torch.allclose(writing.summed_losses(logits, labels), whole)
    expected = torch.nn.functional.cross_entropy(logits[2, :3], labels[2, :3], reduction="sum")
    assert whole[2].tolist() == pytest.approx([float(expected), 3.0], rel=1e-5)
    assert float(writing.smoothed_loss(logits, labels)) == pytest.approx(float(whole[:, 0].sum()), rel=1e-5)
    assert float(writing.smoothed_loss(logits, labels, 0.1)) != pytest.approx(float(whole[:, 0].sum()))
