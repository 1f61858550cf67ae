"""The parts inside a backbone give what the plain parts give: embedding, attention, pooling, FLOPs."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from foretune.backbones import attention
from foretune.backbones.embedding import SeenRowsEmbedding
from foretune.backbones.layers import map_layers
from foretune.backbones.pooling import append_mean_pooling, head_linears, normalised_mean, straighten
from foretune.backbones.text import TextBackbone, load_text_backbone, set_dropout
from foretune.data.store import CutReport, build
from foretune.training.flops import FlopModel, _count, fit_flops


def load_tiny(folder):
    options = {"num_labels": 3}
    return load_text_backbone(
        folder, auto_class="AutoModelForSequenceClassification", options=options, offline=True
    )


def trained(model, batches, steps=12):
    """Train with AdamW as in a fit (no decay on embeddings); return the losses."""
    model.train()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if "embed" not in n], "weight_decay": 0.1},
        {"params": [p for n, p in named if "embed" in n], "weight_decay": 0.0},
    ]
    optimizer, losses = torch.optim.AdamW(groups, lr=1e-2), []
    for step in range(steps):
        ids, mask, targets = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("first_new", [None, 90])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_seen_rows_train_as_the_whole_table_does(backbone_folder, kind, first_new):
    draw = np.random.default_rng(0)
    rows = [draw.choice([5, 6, 9, 40, 41, 90, 95], size=length) for length in (3, 7, 5, 7, 2, 9)]
    store = build(rows, CutReport(6))
    dense = load_tiny(backbone_folder(kind))
    set_dropout(dense.model, 0.0)
    sparse = copy.deepcopy(dense)
    sparse._first_new = first_new
    sparse.train_seen_embeddings(store)
    table = sparse.model.get_input_embeddings()
    assert isinstance(table, SeenRowsEmbedding) and (table.new is None) == (first_new is None)
    assert len(table.trained()) == 8  # the padding's row too
    batches = []
    for chosen in ([0, 1, 2], [3, 4, 5]):
        ids, mask = store.padded(np.array(chosen), dense.padding)
        batches.append(
            (torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)), torch.tensor([0, 1, 2]))
        )
    assert trained(dense.model, batches) == pytest.approx(trained(sparse.model, batches), rel=1e-6)
    unseen = torch.tensor([[7, 5, 50, 90]])
    dense.model.eval(), sparse.model.eval()
    with torch.inference_mode():
        expected = dense.model(input_ids=unseen).logits
        torch.testing.assert_close(sparse.model(input_ids=unseen).logits, expected, rtol=1e-5, atol=1e-6)
    sparse.fold_embeddings()
    assert type(sparse.model.get_input_embeddings()) is nn.Embedding
    for (name, one), (other, two) in zip(
        dense.model.state_dict().items(), sparse.model.state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_seen_rows_leave_a_frozen_table_alone(tiny):
    backbone = load_tiny(tiny)
    backbone.model.requires_grad_(False)
    backbone.train_seen_embeddings(build([np.array([5])], CutReport(1)))
    assert type(backbone.model.get_input_embeddings()) is nn.Embedding
    backbone.fold_embeddings()


def test_the_padding_row_learns_nothing():
    table = SeenRowsEmbedding(nn.Embedding(10, 4, padding_idx=0), np.array([0, 3, 7]))
    table.train()
    table(torch.tensor([[3, 0, 0], [7, 3, 0]])).sum().backward()
    assert table.seen.grad.sum(1).tolist() == [0, 8, 4]
    assert set(dict(table.named_parameters())) == {"weight", "seen"} and not table.weight.requires_grad


@settings(max_examples=25, deadline=None)
@given(
    heads=st.sampled_from([(2, 2), (4, 2), (4, 1)]), tokens=st.integers(1, 9), masked=st.integers(0, 8),
    scaling=st.sampled_from([None, 0.3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_matmul_attention_equals_the_fused_one(heads, tokens, masked, scaling, seed):
    torch.manual_seed(seed)
    many, few = heads
    made = [torch.randn(2, h, tokens, 8, requires_grad=True) for h in (many, few, few)]
    mask = torch.zeros(2, 1, 1, tokens)
    mask[1, ..., tokens - min(masked, tokens - 1) :] = torch.finfo(torch.float32).min
    mask = mask.expand(2, 1, tokens, tokens)
    found, weights = attention.matmul_attention(nn.Identity(), *made, mask, scaling=scaling)
    found.square().sum().backward()
    mine = [x.grad.clone() for x in made]
    for x in made:
        x.grad = None
    expected = nn.functional.scaled_dot_product_attention(
        *made, attn_mask=mask, scale=scaling, enable_gqa=many != few
    ).transpose(1, 2)
    expected.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, many, tokens))
    for gradient, x in zip(mine, made, strict=True):
        torch.testing.assert_close(gradient, x.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "roformer", "distilbert", "modernbert", "gpt2", "llama"])
def test_every_attention_gives_the_same_model(backbone_folder, kind):
    """Causal, sliding-window and padded: with a mask and without."""
    backbone = load_tiny(backbone_folder(kind))
    backbone.model.eval()
    store = backbone.preprocess(
        ["good film", "bad plot and warm room " * 5], max_length=60, truncation="head"
    )
    batches = [backbone.collate(store, np.array(rows)) for rows in ([0, 1], [1])]
    chosen, outputs = [], []
    for device, precision in (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "bf16")):
        chosen.append(attention.use_best_attention(backbone.model, device, precision))
        outputs.append([backbone.forward(batch).detach() for batch in batches])
    if kind != "roformer":
        assert chosen == ["sdpa", attention.NAME, "sdpa"]
    for one, two in zip(*outputs[:2], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_attention_dropout_follows_training_mode():
    module, made = nn.Identity(), [torch.randn(1, 1, 6, 4) for _ in range(3)]
    module.train()
    one, two = (attention.matmul_attention(module, *made, None, dropout=0.5)[0] for _ in range(2))
    assert not torch.equal(one, two)
    module.eval()
    one, two = (attention.matmul_attention(module, *made, None, dropout=0.5)[0] for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["bert", "roberta", "roformer"])
def test_the_pooling_layer_is_the_mean(backbone_folder, kind):
    backbone = load_tiny(backbone_folder(kind))
    model = backbone.model.eval()
    torch.manual_seed(0)
    ids, lengths = torch.randint(5, 100, (4, 30)), torch.tensor([30, 17, 5, 1])
    mask = (torch.arange(30) < lengths[:, None]).long()
    with torch.no_grad():
        below = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = normalised_mean(below, mask)
    layer = append_mean_pooling(model)
    for form in (layer.complete, layer.skip):  # as saved, and as run
        form()
        with torch.no_grad():
            top = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(top[:, 0], expected, rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(
            top[1, 3], expected[1], rtol=1e-3, atol=2e-3
        )  # every token, not [CLS] only
    by_hand = below[1, :17].mean(0)
    torch.testing.assert_close(
        expected[1], (by_hand - by_hand.mean()) / by_hand.std(unbiased=False), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("kind", ["distilbert", "modernbert", "gpt2", "llama"])
def test_other_layers_are_left_as_they_are(backbone_folder, kind):
    model = load_tiny(backbone_folder(kind)).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert append_mean_pooling(model) is None
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(t, after[n]) for n, t in before.items())


def test_a_straight_head_is_linear(tiny):
    model = load_tiny(tiny).model
    dense, classifier = head_linears(model)
    assert dense.in_features == dense.out_features == 32 and classifier.out_features == 3
    straighten(dense)
    x = torch.linspace(-3, 3, 32)
    torch.testing.assert_close(torch.tanh(dense(x)) / 0.05, x, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_the_flop_model_predicts_other_lengths(backbone_folder, kind):
    backbone = load_tiny(backbone_folder(kind))
    model = fit_flops(backbone)
    for tokens in (5, 12, 24, 48, 60):
        assert model.total(np.array([tokens])) == pytest.approx(_count(backbone, tokens, 0), rel=0.02)
    assert model.total(np.array([5, 60])) == pytest.approx(sum(model.total(np.array([t])) for t in (5, 60)))


def test_flops_of_bert_by_hand(tiny):
    """Forward 2 per weight and token, backward twice that; attention 4 t² h forward in each layer."""
    backbone = load_tiny(tiny)
    attention.use_best_attention(backbone.model, "cpu", "bf16")
    h, f, t, layers = 32, 64, 40, len(map_layers(backbone.model).layers)
    forward = layers * (2 * t * (4 * h * h + 2 * h * f) + 4 * t * t * h) + 2 * h * h + 2 * h * 3
    assert fit_flops(backbone).total(np.array([t])) == pytest.approx(3 * forward, rel=0.02)


def test_the_fused_kernel_is_counted_too(tiny):
    """Else long texts would seem to use less of the machine than they do."""
    backbone, totals = load_tiny(tiny), []
    for precision in ("fp32", "bf16"):
        attention.use_best_attention(backbone.model, "cpu", precision)
        totals.append(fit_flops(backbone).quadratic)
    assert totals[0] == pytest.approx(totals[1], rel=0.3) and totals[1] > 0


def test_counting_leaves_no_trace(tiny):
    backbone = load_tiny(tiny)
    backbone.model.train()
    state = torch.get_rng_state()
    assert isinstance(backbone, TextBackbone) and isinstance(fit_flops(backbone), FlopModel)
    assert torch.equal(state, torch.get_rng_state()) and backbone.model.training
    assert all(p.grad is None for p in backbone.model.parameters())
