"""Generation streams whole characters, stops where the document ends, and goes on past the context."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.inference.batching import continue_tokens
from kindling_trainer.inference.generate import Generator, decode_pieces
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize

GREEDY = GenerationOptions(max_tokens=40, temperature=0)


def make(architecture: str, context: int = 16, vocab_size: int = 30) -> Decoder:
    sizes = {"layers": 2, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 32, "context": context}
    model = build_model(ModelShape.model_validate({"architecture": architecture, **sizes}), vocab_size)
    initialize(model, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # far from uniform, so that rounding decides nothing
    return model.eval()


def bytes_tokenizer() -> Tokenizer:
    """One token a byte, and one that ends a document."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def letters_tokenizer(letters: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(letters)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def reference(model: Decoder, tokens: list[int], count: int) -> list[int]:
    """Greedy continuation that computes all anew for each token, from the same window as `continue_tokens` sees."""
    context = model.shape.context
    seen, start = list(tokens), 0 if len(tokens) <= context else len(tokens) - context // 2
    for _ in range(count):
        if len(seen) - start > context:
            start = len(seen) - context // 2
        seen.append(int(model(torch.tensor([seen[start:]]))[0, -1].argmax()))
    return seen[len(tokens) :]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("length", [1, 7, 15, 16, 17, 40], ids=lambda length: f"prompt of {length}")
def test_the_cached_continuation_is_the_uncached_one_within_and_past_the_context(
    architecture: str, length: int
) -> None:
    model = make(architecture)
    prompt = torch.randint(0, 30, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    assert list(continue_tokens(model, prompt, GREEDY)) == reference(model, prompt, 40)


def test_one_seed_gives_one_text_and_others_give_others() -> None:
    model = make("llama")
    texts = {
        seed: list(continue_tokens(model, [1, 2], GenerationOptions(max_tokens=20, temperature=1.5, seed=seed)))
        for seed in (1, 2, 3)
    }
    assert texts[1] == list(continue_tokens(model, [1, 2], GenerationOptions(max_tokens=20, temperature=1.5, seed=1)))
    assert texts[1] != texts[2] != texts[3]


def test_tokens_of_the_padding_are_never_chosen() -> None:
    model = make("gpt2", vocab_size=64)
    options = GenerationOptions(max_tokens=200, temperature=5.0, seed=0)
    assert max(continue_tokens(model, [0], options, vocab_size=10)) < 10


def test_the_repetition_penalty_counts_the_prompt_and_what_was_written() -> None:
    model = make("llama")
    strict = GenerationOptions(max_tokens=12, temperature=0, repetition_penalty=100)
    written = list(continue_tokens(model, [3, 4], strict))
    assert len({3, 4, *written}) == 14


@pytest.mark.parametrize(
    "text", ["naïve café", "🙂🙃", "日本語", "a🙂b", "e\u0301"], ids=["accents", "emoji", "kanji", "mixed", "combining"]
)
def test_pieces_are_whole_characters_and_add_up_to_the_text(text: str) -> None:
    tokenizer = bytes_tokenizer()
    pieces = list(decode_pieces(tokenizer, tokenizer.encode(text).ids))
    assert "".join(pieces) == text
    assert pieces == list(text)  # a byte a token: each character comes as soon as its last byte has


def test_bytes_that_are_no_text_do_not_hold_up_what_follows() -> None:
    tokenizer = bytes_tokenizer()
    good, accent = tokenizer.encode("ab").ids, tokenizer.encode("é").ids
    assert "".join(decode_pieces(tokenizer, [accent[1], accent[1], *good])) == "\ufffd\ufffdab"


def test_an_unfinished_character_at_the_end_is_not_shown() -> None:
    tokenizer = bytes_tokenizer()
    assert "".join(decode_pieces(tokenizer, tokenizer.encode("ab🙂").ids[:-1])) == "ab"


def test_spaces_between_words_survive_streaming() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert list(decode_pieces(tokenizer, [0, 1, 0])) == ["one", " two", " one"]


def test_the_first_space_of_a_continuation_survives() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert list(decode_pieces(tokenizer, [1, 0], before=[0])) == [" two", " one"]
    generator = Generator(Scripted([1] * 9, 2), tokenizer, None)  # type: ignore[arg-type]
    assert "".join(generator.generate("one", GenerationOptions(max_tokens=2, temperature=0))) == " two two"


def test_a_character_that_the_prompt_has_begun_is_no_text_before() -> None:
    tokenizer = bytes_tokenizer()
    begun, rest = tokenizer.encode("é").ids
    assert "".join(decode_pieces(tokenizer, [rest, *tokenizer.encode("a").ids], before=[begun])).endswith("a")


class Scripted(torch.nn.Module):
    """A model that says what it is told: position p is followed by the p-th token of the script."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        super().__init__()
        self.script, self.shape = script, make("llama", context=64).shape
        self.embedding = torch.nn.Embedding(vocab_size, 1)

    def forward(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        following = torch.tensor(self.script)[cache.extend(tokens)]
        return torch.nn.functional.one_hot(following, self.embedding.num_embeddings).float()


def test_the_text_stops_where_the_document_ends() -> None:
    tokenizer = bytes_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    script = [0, *tokenizer.encode("done").ids, end, *tokenizer.encode("more").ids]
    generator = Generator(Scripted(script, 257), tokenizer, end)  # type: ignore[arg-type]
    assert "".join(generator.generate("ab", GREEDY)) == "done"
    without_end = Generator(generator.model, tokenizer, None)
    assert "".join(without_end.generate("ab", GenerationOptions(max_tokens=9, temperature=0))) == "donemore"


def test_an_empty_prompt_begins_a_document() -> None:
    tokenizer = bytes_tokenizer()
    generator = Generator(make("llama", vocab_size=257), tokenizer, 256)
    options = GenerationOptions(max_tokens=5, temperature=0)
    after_end = decode_pieces(tokenizer, continue_tokens(generator.model, [256], options))
    assert "".join(generator.generate("", options)) == "".join(after_end)


def test_a_text_with_a_token_that_the_model_has_no_embedding_for_is_refused() -> None:
    tokenizer = bytes_tokenizer()
    generator = Generator(make("llama", vocab_size=257), tokenizer, 256)
    tokenizer.add_tokens(["<pad>"])
    with pytest.raises(SpecError, match="prompt: found '<pad>', which is token 257; allowed: tokens below 257"):
        generator.generate("hello <pad>", GREEDY)
    assert "".join(generator.generate("hello", GREEDY))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt: found no text; allowed: at least one character. To fix it: give one."),
        (
            "abz",
            "prompt: found 'abz' (WordLevel error: Missing [UNK] token from the vocabulary); allowed: text that the"
            " model's tokenizer covers. To fix it: leave out characters the model never saw.",
        ),
    ],
    ids=["empty", "unknown character"],
)
def test_a_prompt_that_the_tokenizer_cannot_read_is_refused_at_once(prompt: str, message: str) -> None:
    generator = Generator(make("gpt2", vocab_size=3), letters_tokenizer("abc"), None)
    with pytest.raises(SpecError) as refusal:
        generator.generate(prompt, GREEDY)
    assert str(refusal.value) == message
