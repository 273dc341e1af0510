"""A tokenizer of the `tokenizers` library as llama.cpp has it: two kinds of BPE.

Byte-level BPE (`gpt2`) cuts a text by one of the patterns that llama.cpp has by name and applies merges by rank.
SentencePiece's (`llama`) knows no cuts and merges the pair whose token has the highest score, which is here the rank of
its first merge, negated: the same order. NFC, which Qwen's files ask for, llama.cpp leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.checkpoint.huggingface.tokenizer import TOKENIZER

_SPACE = "▁"
_TAIL = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_APOSTROPHES = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|", r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|")
_PATTERNS = {
    **{head + _TAIL % "{1,3}": "dbrx" for head in _APOSTROPHES},
    **{head + _TAIL % "": "qwen2" for head in _APOSTROPHES},
}
"""llama.cpp's names (`tokenizer.ggml.pre`) of the patterns that cut a text into words, from `llm_tokenizer_bpe`."""
_GPT2, _SMOLLM, _CL100K, _LLAMA3 = "gpt-2", "smollm", "dbrx", "llama-bpe"
_NO_MERGE = "a !"
"""A merge that no text meets, for a letter and a sign are never in one word: llama.cpp asks for at least one."""


@dataclass(frozen=True)
class GgufTokenizer:
    """What a file says of its tokenizer."""

    model: str
    """`gpt2` or `llama`."""
    pre: str
    tokens: Sequence[str]
    types: Sequence[TokenType]
    merges: Sequence[str]
    scores: Sequence[float]
    space_prefix: bool
    ends: Mapping[str, bool]
    """Whether a text begins with `bos` and ends with `eos`."""
    special: Mapping[str, int]
    """Tokens by their role: bos, eos, eot, pad, unk."""

    def write(self, writer: GGUFWriter) -> None:
        """Its keys."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == "llama":
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.space_prefix)
        else:
            writer.add_token_merges(self.merges)
        for role, number in self.special.items():
            getattr(writer, f"add_{role}_token_id")(number)
        writer.add_add_bos_token(self.ends["bos"])
        writer.add_add_eos_token(self.ends["eos"])


def gguf_tokenizer(tokenizer: Tokenizer, special: SpecialTokens, rows: int, where: str) -> GgufTokenizer:
    """The tokenizer in llama.cpp's words.

    Args:
        special: the special tokens that the model's files name.
        rows: of the model's embedding; tokens beyond are left out, rows without a token become unused tokens.
        where: names the model's folder.

    Raises:
        SpecError: llama.cpp has no such tokenizer.
    """
    document = json.loads(tokenizer.to_str())
    where, model = f"{where}/{TOKENIZER}", document["model"]
    if model["type"] != "BPE":
        raise _refusal(where, "model.type", model["type"], "BPE")
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise _refusal(where, f"model.{field}", model[field], "none")
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    pieces = bool(model.get("byte_fallback"))
    pre = "default" if pieces else _pre_tokenizer(document, where)
    prefixed = _space_prefix(document, where) if pieces else False
    tokens, types = _tokens(document, rows)
    return GgufTokenizer(
        model="llama" if pieces else "gpt2",
        pre=pre,
        tokens=tokens,
        types=types,
        merges=merges or [_NO_MERGE],
        scores=_scores(tokens, merges),
        space_prefix=prefixed,
        ends=_ends(tokenizer, special),
        special=_roles(special, model, rows),
    )


def _pre_tokenizer(document: Mapping[str, Any], where: str) -> str:
    """The name of the pattern by which a byte-level tokenizer cuts a text."""
    normalizers = _parts(document["normalizer"], "normalizers")
    if any(each["type"] != "NFC" for each in normalizers):
        raise _refusal(where, "normalizer", [each["type"] for each in normalizers], "none, or NFC")
    parts = _parts(document["pre_tokenizer"], "pretokenizers")
    *before, last = parts or [{"type": "none"}]
    ignores = bool(document["model"].get("ignore_merges"))
    name = None
    if last["type"] == "ByteLevel" and not last["add_prefix_space"]:
        match before:
            case []:
                name = _GPT2 if last["use_regex"] or not document["model"]["merges"] else None
            case [{"type": "Digits", "individual_digits": True}]:
                name = _SMOLLM if last["use_regex"] else None
            case [{"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": pattern}}]:
                name = _PATTERNS.get(pattern) if not last["use_regex"] else None
    if ignores:  # words that are tokens are taken whole: of these, llama.cpp does so with one pattern
        name = _LLAMA3 if name == _CL100K else None
    if name is None:
        found = json.dumps(document["pre_tokenizer"], ensure_ascii=False)[:300] + (", ignore_merges" if ignores else "")
        raise _refusal(where, "pre_tokenizer", found, "byte-level, cut as by GPT-2, GPT-4, Llama 3, Qwen 2 or SmolLM")
    return name


def _space_prefix(document: Mapping[str, Any], where: str) -> bool:
    """Whether a tokenizer in SentencePiece's manner puts a space before a text."""
    allowed, prefixed, replaced = f"spaces written as {_SPACE}, and nothing else", False, False
    for each in _parts(document["normalizer"], "normalizers"):
        match each:
            case {"type": "Prepend", "prepend": "▁"}:
                prefixed = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                replaced = True
            case _:
                raise _refusal(where, "normalizer", each["type"], allowed)
    for each in _parts(document["pre_tokenizer"], "pretokenizers"):
        match each:
            case {"type": "Metaspace", "replacement": "▁", "split": False}:
                prefixed, replaced = prefixed or each.get("prepend_scheme") in ("always", "first"), True
            case {"type": "Split", "pattern": {"String": " "}} if replaced:
                pass  # no space is left
            case _:
                raise _refusal(where, "pre_tokenizer", each["type"], allowed)
    if not replaced:
        raise _refusal(where, "normalizer", "spaces as they are", allowed)
    return prefixed


def _tokens(document: Mapping[str, Any], rows: int) -> tuple[list[str], list[TokenType]]:
    """The text and the kind of each row."""
    model = document["model"]
    tokens = [f"[PAD{number}]" for number in range(rows)]
    types = [TokenType.UNUSED] * rows
    for text, number in model["vocab"].items():
        if number < rows:
            is_byte = model.get("byte_fallback") and len(text) == len("<0x00>") and text.startswith("<0x")
            tokens[number], types[number] = text, TokenType.BYTE if is_byte else TokenType.NORMAL
    for added in document["added_tokens"]:
        if (number := added["id"]) < rows:
            kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
            text = added["content"] if added["special"] else added["content"].replace(_SPACE, " ")
            tokens[number], types[number] = text, kind
    if (unknown := model["vocab"].get(model.get("unk_token"))) is not None and unknown < rows:
        types[unknown] = TokenType.UNKNOWN
    return tokens, types


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Minus the rank of the first merge that makes a token; of what no merge makes, below all others."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _ends(tokenizer: Tokenizer, special: SpecialTokens) -> dict[str, bool]:
    """What the tokenizer puts around a text."""
    around = tokenizer.encode("").ids
    return {
        "bos": special.bos is not None and around[:1] == [special.bos],
        "eos": special.eos is not None and around[-1:] == [special.eos] and around != [special.bos],
    }


def _roles(special: SpecialTokens, model: Mapping[str, Any], rows: int) -> dict[str, int]:
    turn = next((stop for stop in special.stops if stop != special.eos), None)
    unknown = model["vocab"].get(model.get("unk_token"))
    roles = {"bos": special.bos, "eos": special.eos, "eot": turn, "pad": special.pad, "unk": unknown}
    return {role: number for role, number in roles.items() if number is not None and number < rows}


def _parts(document: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as the list of those that it consists of."""
    if document is None:
        return []
    return list(document[name]) if document["type"] == "Sequence" else [document]


def _refusal(where: str, field: str, found: object, allowed: str) -> SpecError:
    remedy = "export it without --to gguf, for transformers"
    return SpecError(
        explain(f"{where}: {field}", found=found, allowed=f"{allowed}, as llama.cpp has them", remedy=remedy)
    )
