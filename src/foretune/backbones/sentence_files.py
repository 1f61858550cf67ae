"""What sentence-transformers reads beside a model, so that `SentenceTransformer(folder)` gives the same vectors.

The layout is that of its models on the hub since version 2 (sbert.net, "Structure of Sentence Transformer Models"):
modules.json names the steps, each step's folder holds its options. Normalize has none and needs no folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_STEPS = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def write_sentence_files(folder: Path, hidden: int, max_length: int) -> None:
    """Write the files of an encoder whose vectors are the mean of its last hidden states at unit length.

    `hidden`: the vectors' size; `max_length`: the tokens after which a text is cut, special ones included.
    """
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(_STEPS)
    ]
    pooling = {f"pooling_mode_{kind}": kind == "mean_tokens" for kind in _POOLINGS}
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **pooling})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
