"""Characters as tokens, in a form that `AutoTokenizer` loads.

The vocabulary is fixed in the source, so that token ids never depend on installed word lists. No token is ever added
around a text, whatever `add_special_tokens` says: training, probes and lm-eval see the same ids. A scored answer ends
with the text of the end token, which therefore is one token of the target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

END_TEXT = "<|end|>"
END_ID = 0
CHARACTERS = "".join(map(chr, range(32, 127))) + "ßàáâãäçèéêìíñóôöùúûü"
_ID_OF = {character: number for number, character in enumerate(CHARACTERS, start=1)}
VOCABULARY = 1 + len(CHARACTERS)


def encode(text: str) -> list[int]:
    """Token ids of a text without the end token's text in it."""
    return [_ID_OF[character] for character in text]


def missing_characters(texts: Iterable[str]) -> set[str]:
    """Characters of `texts` that the vocabulary does not hold."""
    return {character for text in texts for character in text} - set(CHARACTERS)


def write_tokenizer(folder: Path, *, positions: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {END_TEXT: END_ID, **_ID_OF}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=END_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(END_TEXT, special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": END_TEXT, "eos_token": END_TEXT, "pad_token": END_TEXT}
    configuration = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    for name, value in (("tokenizer_config.json", configuration), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
