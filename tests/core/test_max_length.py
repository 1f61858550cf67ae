"""The longest input is what the position table holds: models that count positions from behind the padding index too."""

import pytest
import torch
import transformers

from foretune.backbones.text import TextBackbone

from .conftest import SMALL, VOCABULARY, _tokenizer

PLACES = 40


def backbone(kind):
    config = getattr(transformers, f"{kind}Config")(
        **SMALL, vocab_size=len(VOCABULARY), pad_token_id=1, max_position_embeddings=PLACES, num_labels=2
    )
    if kind == "Longformer":
        config.attention_window = [4, 4]
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    tokens = _tokenizer()
    tokens.model_max_length = 10**6  # it states no limit of its own
    return TextBackbone(kind, model.eval(), tokens, None)


@pytest.mark.parametrize(("kind", "longest"), [
    ("Bert", 40), ("Electra", 40), ("Roberta", 38), ("XLMRoberta", 38), ("Camembert", 38), ("MPNet", 38),
    ("Data2VecText", 38), ("Esm", 38), ("Longformer", 38),
])  # fmt: skip
def test_as_many_tokens_as_there_are_positions(kind, longest):
    """That many run, and what is stated in the configuration may be more."""
    found = backbone(kind)
    assert found.max_length == longest
    with torch.no_grad():
        ids = torch.full((1, found.max_length), 7)
        assert torch.isfinite(found.forward({"input_ids": ids})).all()
