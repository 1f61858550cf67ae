"""The hub's code path, against a stand-in on loopback: fetched once, then read from the cache without it."""

import json
import subprocess
import sys
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY, COMMIT = "acme/tiny-bert", "0123456789abcdef0123456789abcdef01234567"
NEXT = COMMIT[::-1]
SCRIPT = """
import json, sys
from foretune.backbones.text import load_text_backbone
from foretune.errors import BackboneError
try:
    made = load_text_backbone(sys.argv[1], auto_class="AutoModelForSequenceClassification",
                              options={"num_labels": 2}, offline=sys.argv[2] == "offline")
    print(json.dumps({"layers": made.layers.count, "name": made.name, "fingerprint": made.fingerprint()}))
except BackboneError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub(tiny):
    """Serve a folder as the hub serves a repository; yield its address and the paths asked for."""
    asked, commit = [], [COMMIT]

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body):
            asked.append(self.path)
            if self.path == "/push":  # somebody changes the repository
                commit[0] = NEXT
                self.send_response(204)
                return self.end_headers()
            start = f"/{REPOSITORY}/resolve/"
            name = self.path.split("?")[0].removeprefix(start).partition("/")[2]
            file = Path(tiny) / name
            if self.path.startswith(start) and name and file.is_file():
                data = file.read_bytes()
                self.send_response(200)
                self.send_header("ETag", f'"{sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit[0])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                return self.wfile.write(data) if body else None
            known = REPOSITORY in self.path
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", commit[0])
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def load(hub, tmp_path, monkeypatch):
    """Return a function that loads a backbone in a new process which knows only the stand-in."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub[0])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")

    def run(name, mode="online", script=SCRIPT):
        done = subprocess.run(
            [sys.executable, "-c", script, name, mode], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_backbone_comes_from_the_hub_and_then_from_its_cache(hub, load):
    first = load(REPOSITORY)
    assert (first["layers"], first["name"]) == (2, "acme--tiny-bert")
    assert any(path.endswith("model.safetensors") for path in hub[1])
    hub[1].clear()
    assert load(REPOSITORY, "offline") == first
    assert hub[1] == []


def test_what_is_not_there_is_an_error_that_names_it(hub, load):
    assert "acme/no-such" in load("acme/no-such")["error"]
    hub[1].clear()
    assert "--offline" in load("acme/no-such", "offline")["error"]
    assert hub[1] == []


RESUMED = """
import json, os, sys
from urllib.request import urlopen
from foretune import api
from foretune.errors import CheckpointError

class Stop:
    def on(self, kind, values):
        if kind == "checkpoint":
            raise KeyboardInterrupt(values["step"])

    def close(self):
        pass

def fit(resume):
    rows = [{"text": f"{mood} film {n}", "label": mood} for n in range(8) for mood in ("good", "bad")]
    try:
        api.fit(rows, backbone=sys.argv[1], output=sys.argv[2], resume=resume, listeners=[Stop()], epochs=2,
                batch_tokens=30, micro_tokens=30, checkpoint_seconds=0.0, precision="fp32", device="cpu",
                dev_fraction=0.0, test_fraction=0.0)
    except (KeyboardInterrupt, CheckpointError) as error:
        return [type(error).__name__, str(error)]

told = [fit(resume=False), fit(resume=True)]
urlopen(os.environ["HF_ENDPOINT"] + "/push").close()
print(json.dumps([*told, fit(resume=True)]))
"""


def test_a_repository_that_changed_between_a_run_and_its_resumption_is_noticed(load, tmp_path):
    stopped, resumed, refused = load(REPOSITORY, str(tmp_path / "run"), RESUMED)
    assert (stopped, resumed) == (["KeyboardInterrupt", "1"], ["KeyboardInterrupt", "2"])
    assert refused[0] == "CheckpointError" and "the backbone" in refused[1]
