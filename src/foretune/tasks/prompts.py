"""How texts, prompts and responses become token ids of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.data import store as stores
from foretune.data.store import CutReport, RaggedStore
from foretune.data.windows import TokenSequence
from foretune.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1024  # texts per call of the tokenizer
PART = 1 << 20  # characters of a long text that are tokenised at once


@dataclass(frozen=True)
class Prompts:
    """A tokenizer and the form of prompts.

    `responds`: a line end stands between prompt and response. `chat`: the tokenizer's chat template stands
    around both instead. Raises ConfigError where the tokenizer has no such template.
    """

    tokenizer: Any
    responds: bool = False
    chat: bool = False

    def __post_init__(self) -> None:
        if self.chat and not getattr(self.tokenizer, "chat_template", None):
            raise ConfigError(
                "Option chat is true, but the backbone's tokenizer has no chat template. Leave the option out, or "
                "give a backbone that was trained to chat."
            )

    def texts(self, texts: Sequence[str], ends: bool = True) -> list[TokenSequence]:
        """Return whole texts, predicted from their first token on; with `ends` their end is predicted too."""
        start, end = self._start(), self._end() if ends else []
        return [
            TokenSequence(np.asarray([*start, *ids, *end], np.int32), len(start) or 1, len(text.encode()))
            for text, ids in zip(texts, self._ids(texts), strict=True)
        ]

    def responses(self, prompts: Sequence[str], responses: Sequence[str]) -> list[TokenSequence]:
        """Return prompts with their responses, of which the responses and their ends are predicted."""
        if self.chat:
            pairs = [self._turns(*pair) for pair in zip(prompts, responses, strict=True)]
            before, after = (list(part) for part in zip(*pairs, strict=True))
            joined = zip(self._ids(before), self._ids(after), strict=True)
            made = [(first, second) for first, second in joined]
        else:
            start, end = self._start(), self._end()
            joined = zip(self._ids(self._opened(prompts)), self._ids(responses), strict=True)
            made = [([*start, *first], [*second, *end]) for first, second in joined]
        return [
            TokenSequence(np.asarray([*first, *second], np.int32), max(len(first), 1), len(response.encode()))
            for (first, second), response in zip(made, responses, strict=True)
        ]

    def prompts(self, prompts: Sequence[str], longest: int) -> RaggedStore:
        """Return prompts to go on with, of long ones the last `longest` ids."""
        start = [] if self.chat else self._start()
        opened = [self._rendered(prompt) for prompt in prompts] if self.chat else self._opened(prompts)
        whole = [[*start, *ids] or self._end() for ids in self._ids(opened)]
        cut = [len(ids) - longest for ids in whole if len(ids) > longest]
        report = CutReport(len(whole), sum(map(len, whole)), len(cut), sum(cut))
        return stores.build([np.asarray(ids[-longest:]) for ids in whole], report)

    def _opened(self, prompts: Sequence[str]) -> list[str]:
        return [f"{prompt}\n" for prompt in prompts] if self.responds else list(prompts)

    def _rendered(self, prompt: str) -> str:
        turns = [{"role": "user", "content": prompt}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _turns(self, prompt: str, response: str) -> tuple[str, str]:
        """Return the chat up to the response, and the response with the mark of its end."""
        before = self._rendered(prompt)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        whole = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        if not whole.startswith(before):
            raise ConfigError(
                "The chat template writes a question with its answer differently than the question alone. Leave "
                "--option chat out."
            )
        return before, whole[len(before) :]

    def _start(self) -> list[int]:
        found = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if found is None else found
        return [] if found is None else [found]

    def _end(self) -> list[int]:
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def _ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the ids of every text, without special tokens; long texts are tokenised in parts."""
        for start in range(0, len(texts), CHUNK):
            parts = [
                [text[at : at + PART] for at in range(0, max(len(text), 1), PART)]
                for text in texts[start : start + CHUNK]
            ]
            flat = [part for each in parts for part in each]
            encoded = iter(self.tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"])
            for each in parts:
                yield [number for _ in each for number in next(encoded)]
