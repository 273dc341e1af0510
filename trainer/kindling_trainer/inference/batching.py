"""Continuous batching: texts of different lengths are continued side by side, and join and leave at any step.

Each text gets the tokens that it would get alone. Whoever serves requests or draws answers for training keeps a
`DecodingBatch`, lets texts join, takes a `step` for one more token of each, and lets those leave that are done. A text
that cannot be continued is told so by itself; the others go on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kindling_trainer.inference.prefixes import PrefixCache
from kindling_trainer.inference.sampling import GenerationOptions, choose_each
from kindling_trainer.models import Decoder
from kindling_trainer.models.kv_cache import KVCache

READ_AT_ONCE = 2048
"""Positions, padding included: bounds the memory for logits, and how long the rows already there wait for new ones."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A token, and what the model thought of it: before temperature, penalty and cuts."""

    token: int
    log_probability: float
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log-probabilities, as many as the row asked for."""


@dataclass(eq=False)
class Row:
    """One text in a batch."""

    tokens: list[int]
    """The prompt, and what has been added."""
    options: GenerationOptions
    generator: torch.Generator
    likeliest: int = 0
    """How many of the likeliest tokens are told with each one."""
    score_prompt: bool = False
    prompt: list[Chosen] = field(default_factory=list)
    """Where it was asked for: the prompt's tokens but the first, once it has been read."""
    start: int = 0
    """The first token that the model still sees."""


Outcome = tuple[Row, Chosen | Exception]
"""What a step did with a row: the token that was added, or why there is none and never will be."""


class DecodingBatch:
    """Texts that `model`, in evaluation mode, continues together; not for several threads at once."""

    def __init__(self, model: Decoder, vocab_size: int | None = None, prefixes: PrefixCache | None = None) -> None:
        """No token from `vocab_size` on is ever chosen; `prefixes` keeps what was read, for texts that come later."""
        self.model, self.vocab_size, self._prefixes = model, vocab_size, prefixes
        self.rows: list[Row] = []
        """The texts that are in; the newest may still wait to be read."""
        self._cache = KVCache(model.shape.layers, rows=0)
        self._read: list[Row] = []  # those in the cache, by its rows

    def join(
        self, tokens: Sequence[int], options: GenerationOptions, *, likeliest: int = 0, score_prompt: bool = False
    ) -> Row:
        """Adds a text of one token or more; it is read, and gets its first token, in the next step.

        A prompt longer than the context is cut to the newest half of it; whoever wants its scores must not give one.
        """
        generator = torch.Generator()
        if options.seed is None:
            generator.seed()
        else:
            generator.manual_seed(options.seed)
        self.rows.append(Row(list(tokens), options, generator, likeliest, score_prompt))
        return self.rows[-1]

    def leave(self, row: Row) -> None:
        """Takes a text out, whether or not it has been read."""
        self.rows.remove(row)
        if row in self._read:
            if self._prefixes is not None and row.start == 0:
                self._prefixes.keep(row.tokens, self._cache, self._read.index(row))
            self._forget(row)

    @torch.no_grad()
    def step(self) -> list[Outcome]:
        """One more token for each row, which also has it at its end then; rows that wait to be read get none yet.

        When a row's context is full, the model goes on from the newest half of it, read anew: positions are absolute
        in the cache, so it cannot simply slide.

        A row that cannot be continued is told with the error, and should leave. What fails for several rows together
        is taken for each of them alone.
        """
        context = self.model.shape.context
        for row, length in list(zip(self._read, self._cache.lengths, strict=True)):
            if length + 1 > context:
                self._forget(row)
        outcomes = self._continue_read()
        if unread := self._next_unread({row for row, _ in outcomes}):
            outcomes += self._each(unread, self._take_in)
        return outcomes

    def _continue_read(self) -> list[Outcome]:
        rows = list(self._read)
        if not rows:
            return []
        try:
            logits = self._logits([row.tokens[-1:] for row in rows], self._cache)[:, -1]
        except Exception as error:
            log.warning("%d texts could not be continued together, they are read anew: %s", len(rows), error)
            self._forget_all()
            return []
        return self._choose(rows, logits)

    def _each(self, rows: list[Row], work: Callable[[list[Row]], list[Outcome]]) -> list[Outcome]:
        """The outcomes of a work on rows: on all together, or, where that fails, on each alone."""
        try:
            return work(rows)
        except Exception as error:
            if len(rows) == 1:
                log.exception("a text could not be continued")
                return [(rows[0], error)]
            log.warning("%d texts could not be continued together, each is continued alone: %s", len(rows), error)
        return [outcome for row in rows for outcome in self._each([row], work)]

    def _next_unread(self, served: set[Row]) -> list[Row]:
        """The rows that have waited longest, as many as are read at once; one of them at least. One whose beginning is
        known is read alone.

        Those that this step has `served` wait for the next, if they are to be read anew.
        """
        chosen: list[Row] = []
        widest = 0
        for row in self.rows:
            if row not in self._read and row not in served:
                widest = max(widest, len(self._window(row)))
                is_known = self._known(row) > 0
                if chosen and (is_known or widest * (len(chosen) + 1) > READ_AT_ONCE):
                    break
                chosen.append(row)
                if is_known:
                    break
        return chosen

    def _known(self, row: Row) -> int:
        """How many of a row's first tokens need not be read."""
        if self._prefixes is None or row.score_prompt or len(row.tokens) > self.model.shape.context:
            return 0
        return self._prefixes.shared(self._window(row))

    def _window(self, row: Row) -> list[int]:
        """The part of a row that the model reads anew."""
        context = self.model.shape.context
        if len(row.tokens) - row.start > context:
            row.start = len(row.tokens) - context // 2
        return row.tokens[row.start :]

    def _take_in(self, rows: list[Row]) -> list[Outcome]:
        """Reads rows, of one whose beginning is known the rest, adds them to the cache, and chooses what follows."""
        texts = [self._window(row) for row in rows]
        if len(rows) == 1 and (known := self._known(rows[0])):
            assert self._prefixes is not None
            cache = self._prefixes.begin(texts[0])
            logits = self._logits([texts[0][known:]], cache)
            self._remember(rows, cache)
            return self._choose(rows, logits[:, -1])
        lengths = [len(text) for text in texts]
        cache = KVCache(len(self._cache.layers), len(rows))
        # A row is padded with its own tokens: those of others may be what the model fails on.
        logits = self._logits([text + text[-1:] * (max(lengths) - len(text)) for text in texts], cache)
        cache.cut(lengths)
        for row, length, part in zip(rows, lengths, logits, strict=True):
            if row.score_prompt:
                row.prompt = score_tokens(part[: length - 1], row.tokens[1:length], row.likeliest)
        for row in rows:
            row.score_prompt = False
        self._remember(rows, cache)
        return self._choose(rows, logits[range(len(rows)), [length - 1 for length in lengths]])

    def _remember(self, rows: list[Row], cache: KVCache) -> None:
        if not self._read:
            self._cache, self._read = cache, list(rows)
            return
        try:
            self._cache.add(cache)
        except Exception:
            self._forget_all()  # it may have been added in part
            raise
        self._read += rows

    def _choose(self, rows: list[Row], logits: Tensor) -> list[Outcome]:
        places = {row: place for place, row in enumerate(rows)}
        outcomes = self._each(rows, lambda some: _chosen(some, logits[[places[row] for row in some]]))
        if any(isinstance(outcome, Exception) for _, outcome in outcomes):
            self._forget_all()  # what is no number in the cache would spread to whoever gets its place
        return outcomes

    def _forget(self, row: Row) -> None:
        place = self._read.index(row)
        self._cache.remove(place)
        self._read[place] = self._read[-1]
        self._read.pop()

    def _forget_all(self) -> None:
        """All rows are read anew."""
        self._cache, self._read = KVCache(self.model.shape.layers, rows=0), []

    def _logits(self, tokens: list[list[int]], cache: KVCache) -> Tensor:
        device = self.model.embedding.weight.device
        return self.model(torch.tensor(tokens, device=device), cache)[..., : self.vocab_size]


def _chosen(rows: list[Row], logits: Tensor) -> list[Outcome]:
    seen, options, generators = zip(*((row.tokens, row.options, row.generator) for row in rows), strict=True)
    tokens = choose_each(logits, seen, options, generators)
    scored = score_tokens(logits, tokens, max(row.likeliest for row in rows))
    outcomes: list[Outcome] = []
    for row, token, one in zip(rows, tokens, scored, strict=True):
        row.tokens.append(token)
        outcomes.append((row, Chosen(token, one.log_probability, one.likeliest[: row.likeliest])))
    return outcomes


@dataclass(frozen=True)
class Continuation:
    """What was added to one prompt."""

    tokens: list[int]
    """The token that ended it included."""
    log_probabilities: list[float]
    """What the model gave each token, before temperature, penalty and cuts."""
    ended: bool
    """Whether a stop token ended it, rather than its length."""


def continue_all(
    model: Decoder,
    prompts: Sequence[tuple[Sequence[int], GenerationOptions]],
    *,
    stops: Collection[int] = (),
    vocab_size: int | None = None,
    most: int = 64,
) -> list[Continuation]:
    """Continues every prompt, `most` of them at a time, up to a token of `stops` or the `max_tokens` of its options.

    Returns:
        The continuations, in the order of the prompts.
    """
    batch, waiting = DecodingBatch(model, vocab_size), deque(enumerate(prompts))
    numbers: dict[Row, int] = {}
    done: list[Continuation | None] = [None] * len(prompts)
    added: dict[Row, list[Chosen]] = {}
    while waiting or batch.rows:
        while waiting and len(batch.rows) < most:
            number, (tokens, options) = waiting.popleft()
            row = batch.join(tokens, options)
            numbers[row], added[row] = number, []
        for row, chosen in _whole(batch.step()):
            added[row].append(chosen)
            ended = chosen.token in stops
            if ended or len(added[row]) == row.options.max_tokens:
                batch.leave(row)
                parts = added.pop(row)
                chances = [part.log_probability for part in parts]
                done[numbers.pop(row)] = Continuation([part.token for part in parts], chances, ended)
    return [continuation for continuation in done if continuation is not None]


def continue_tokens(
    model: Decoder, tokens: Sequence[int], options: GenerationOptions, vocab_size: int | None = None
) -> Iterator[int]:
    """Up to `options.max_tokens` tokens that follow `tokens`, none of them `vocab_size` or above.

    They may go on past the model's context: see `DecodingBatch.step`.
    """
    batch = DecodingBatch(model, vocab_size)
    batch.join(tokens, options)
    for _ in range(options.max_tokens):
        yield _whole(batch.step())[0][1].token


def _whole(outcomes: list[Outcome]) -> list[tuple[Row, Chosen]]:
    """What was added to each row; raises what there is instead."""
    for _, outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [(row, outcome) for row, outcome in outcomes if not isinstance(outcome, Exception)]


def score_tokens(logits: Tensor, tokens: Sequence[int], likeliest: int = 0) -> list[Chosen]:
    """What logits [B, V] say of tokens [B], and of as many of the likeliest ones."""
    log_probabilities = logits.float().log_softmax(dim=-1)
    own = log_probabilities.gather(-1, torch.tensor(tokens, dtype=torch.int64, device=logits.device)[:, None])[:, 0]
    best = log_probabilities.topk(min(likeliest, logits.shape[-1]), dim=-1)
    return [
        Chosen(token, chance, tuple(zip(others, chances, strict=True)))
        for token, chance, others, chances in zip(
            tokens, own.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
