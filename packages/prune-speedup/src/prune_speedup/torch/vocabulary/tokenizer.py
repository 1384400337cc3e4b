"""Tokenizers of transformers with fewer tokens, and the tokens that a tokenizer needs.

What a tokenizer knows is a table of texts and ids, and, if it joins pairs (BPE), the list of pairs.
A token can only be made if both parts of it can: so `the`, made of `t` and `he`, needs these.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prune_core.errors import ConfigError, SpeedupError, shown
from prune_speedup.torch.vocabulary.token_map import TokenMap

__all__ = ["smaller_tokenizer", "used_tokens"]

_BATCH = 512


def used_tokens(tokenizer: Any, texts: Iterable[str], *, min_count: int = 1) -> list[int]:
    """Return the ids that a tokenizer needs to turn texts into the same tokens as before.

    These are the tokens that the texts consist of, what they are joined from, the special tokens,
    and all single characters and bytes, so that any other text can still be spelled.

    Args:
        tokenizer: A tokenizer of transformers that is based on the library tokenizers.
        texts: Texts like those that the model will see.
        min_count: How often a token has to occur in them. A rarer one is spelled with shorter ones.

    Returns:
        Ids for `keep=` of `prune_core.remove_tokens`.

    Raises:
        ConfigError: This is no such tokenizer, or `texts` is a single text.

    Example:
        ```python
        keep = prune_core.used_tokens(tokenizer, texts)
        report = prune_core.remove_tokens(model, inputs, keep=keep)
        tokenizer = report.tokens.tokenizer(tokenizer)
        ```
    """
    plain = _plain(tokenizer)
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ConfigError(f"texts is {shown(texts)}; it must be a list of texts.")
    if type(min_count) is not int or min_count < 1:
        raise ConfigError(f"min_count is {shown(min_count)}; it must be a whole number from 1.")
    counts: Counter[int] = Counter()
    for batch in _batches(texts):
        for ids in tokenizer(batch)["input_ids"]:
            counts.update(ids)
    if not counts:
        raise ConfigError("texts is empty, so nothing is known of which tokens are used.")
    needed = {each for each, count in counts.items() if count >= min_count}
    needed |= {added["id"] for added in plain["added_tokens"]} | {*tokenizer.all_special_ids}
    ids = _ids(plain["model"])
    needed |= {ids[token] for token in _shortest(plain["model"]) if token in ids}
    parts: dict[str, list[str]] = {}
    for first, second in _pairs(plain["model"]):
        parts.setdefault(_joined(plain["model"], first, second), []).extend((first, second))
    texts_of = {each: token for token, each in ids.items()}
    waiting = [texts_of[each] for each in needed if each in texts_of]
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part in ids and ids[part] not in needed:
                needed.add(ids[part])
                waiting.append(part)
    return sorted(needed)


def smaller_tokenizer(tokenizer: Any, tokens: TokenMap) -> Any:
    """Return a copy of a tokenizer that knows only some tokens, by their new ids.

    Args:
        tokenizer: A tokenizer of transformers that is based on the library tokenizers.
        tokens: The tokens that stay, as `prune_core.remove_tokens(...).tokens` has them.

    Raises:
        ConfigError: This is no such tokenizer.
        SpeedupError: The tokenizer cannot do without a token that is gone.
    """
    from tokenizers import Tokenizer

    plain = _plain(tokenizer)
    new, model = tokens.new_ids, plain["model"]
    unknown = _unknown(model)
    if unknown is not None and unknown not in new:
        raise SpeedupError(
            f"The tokenizer needs the token {unknown}, which stands for what it does not know. "
            "Keep it: used_tokens(tokenizer, texts) has all tokens that are needed."
        )
    added = [each | {"id": new[each["id"]]} for each in plain["added_tokens"] if each["id"] in new]
    if isinstance(model["vocab"], list):
        kept = [pair for each, pair in enumerate(model["vocab"]) if each in new]
        model["vocab"] = kept
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        vocab = {token: new[each] for token, each in model["vocab"].items() if each in new}
        model["vocab"] = vocab
        if "merges" in model:
            model["merges"] = [
                [first, second]
                for first, second in _pairs(model)
                if {first, second, _joined(model, first, second)} <= vocab.keys()
            ]
    plain["added_tokens"] = added
    plain["post_processor"] = _renumbered(plain.get("post_processor"), new)
    small = copy.deepcopy(tokenizer)
    small._tokenizer = Tokenizer.from_str(json.dumps(plain))
    return small


def _plain(tokenizer: Any) -> dict[str, Any]:
    """What a tokenizer consists of, as its own file has it."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        raise ConfigError(
            f"The tokenizer is {shown(tokenizer)}, and only tokenizers of transformers that are "
            "based on the library tokenizers can be made smaller. Translate the ids of any other "
            "with report.tokens.to_new(ids) and to_old(ids)."
        )
    plain: dict[str, Any] = json.loads(backend.to_str())
    if "vocab" not in plain["model"]:
        raise ConfigError(f"A tokenizer of the kind {plain['model']['type']!r} has no table.")
    return plain


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"texts has {shown(text)}; it must be a list of texts.")
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _ids(model: Mapping[str, Any]) -> dict[str, int]:
    if isinstance(model["vocab"], list):
        return {token: at for at, (token, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _pairs(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The pairs that a BPE tokenizer joins; older files write them as one text."""
    for pair in model.get("merges", ()):
        first, second = pair.split(" ") if isinstance(pair, str) else pair
        yield first, second


def _joined(model: Mapping[str, Any], first: str, second: str) -> str:
    prefix = model.get("continuing_subword_prefix") or ""
    return first + second.removeprefix(prefix)


def _shortest(model: Mapping[str, Any]) -> Iterator[str]:
    """Tokens of which any text can be spelled: characters, bytes, and what is joined of nothing."""
    made = {_joined(model, *pair) for pair in _pairs(model)}
    prefix = model.get("continuing_subword_prefix") or ""
    for token in _ids(model):
        is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        if model["type"] == "BPE":
            alone = token not in made
        else:
            alone = model["type"] != "WordLevel" and len(token.removeprefix(prefix)) == 1
        if alone or is_byte:
            yield token


def _unknown(model: Mapping[str, Any]) -> int | None:
    """The id of what stands for the unknown."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return _ids(model).get(model.get("unk_token") or "")


def _renumbered(tree: Any, new: Mapping[int, int]) -> Any:
    """What is put around a text, in new ids: `["[SEP]", 3]` and `{"ids": [3]}`."""
    if isinstance(tree, Mapping):
        return {
            key: [_kept(each, new) for each in item] if key == "ids" else _renumbered(item, new)
            for key, item in tree.items()
        }
    if isinstance(tree, list):
        if len(tree) == 2 and isinstance(tree[0], str) and type(tree[1]) is int:
            return [tree[0], _kept(tree[1], new)]
        return [_renumbered(item, new) for item in tree]
    return tree


def _kept(old: int, new: Mapping[int, int]) -> int:
    if old not in new:
        raise SpeedupError(
            f"The tokenizer puts the token {old} around a text, and it is gone. Keep it: "
            "used_tokens(tokenizer, texts) has all tokens that are needed."
        )
    return new[old]
