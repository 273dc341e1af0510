"""Reading and writing a Hugging Face folder in a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from tokenizers import Tokenizer
from torch import Tensor

from kindling_api.errors import IntegrityError, SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import put_file
from kindling_trainer.chat.special_tokens import SpecialTokens, special_tokens_of
from kindling_trainer.checkpoint.huggingface.config import (
    check_labels,
    from_config,
    is_reward_model,
    reward_model_config,
    to_config,
)
from kindling_trainer.checkpoint.huggingface.families import Config
from kindling_trainer.checkpoint.huggingface.tokenizer import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION,
    TOKENIZER,
    TOKENIZER_CONFIG,
    ChatFiles,
    generation_config,
    read_json,
    tokenizer_config,
)
from kindling_trainer.checkpoint.huggingface.weights import Named, from_hugging_face, to_hugging_face
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.scored import build_scored

FILE_BYTES = 5 * 10**9
"""The largest file of weights, as transformers cuts them."""

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
"""Which are one where they are tied."""

_VOCABULARY = ("embedding.weight", "head.weight")  # one row a token


def export(
    store: ObjectStore,
    weights: Iterable[Named],
    shape: ModelShape,
    *,
    vocab_size: int,
    tokenizer: bytes,
    end_of_document: int | None,
    special: SpecialTokens | None = None,
    chat: ChatFiles | None = None,
    scored: bool = False,
    file_bytes: int = FILE_BYTES,
) -> list[FileEntry]:
    """Write the model into the folder `store`, as AutoModelForCausalLM and AutoTokenizer load it.

    Rows of the embedding beyond the vocabulary are left out: padding serves training only. No more than one file of
    weights is held in memory.

    Args:
        weights: every parameter, whole, on the CPU, in the order of `named_parameters()`.
        vocab_size: before padding.
        tokenizer: the content of tokenizer.json.
        end_of_document: its token that ends a document, if it has one.
        special: the special tokens of the model that it was made from, if there is one: they stay.
        chat: how dialogues are written, if the model was trained on them.
        scored: whether it scores, and AutoModelForSequenceClassification loads it.

    Returns:
        What was written, by path.

    Raises:
        StorageError: the store cannot be written.
    """
    cut = ((name, tensor[:vocab_size] if _has_rows(name, tensor) else tensor) for name, tensor in weights)
    plan = _plan(build_scored if scored else build_model, shape, vocab_size, file_bytes)
    entries = _write_weights(store, to_hugging_face(shape, cut), plan)
    tokens = Tokenizer.from_str(tokenizer.decode())
    if special is None:
        text = None if end_of_document is None else tokens.id_to_token(end_of_document)
        special = special_tokens_of(end_of_document, text)
    config = to_config(shape, vocab_size, special)
    documents = {
        CONFIG: reward_model_config(config, special.pad) if scored else config,
        GENERATION: generation_config(special, chat),
        TOKENIZER_CONFIG: tokenizer_config(tokens, special, shape.context, chat),
    }
    entries += [put_json(store, path, document) for path, document in documents.items()]
    entries.append(put_file(store, TOKENIZER, tokenizer))
    if chat is not None:
        entries.append(put_file(store, CHAT_TEMPLATE, chat.template.encode()))
    return sorted(entries, key=lambda entry: entry.path)


def read_shape(store: ObjectStore, *, scored: bool = False) -> tuple[ModelShape, int]:
    """The shape of the model in the folder `store`, and its vocabulary's size.

    Args:
        scored: whether it is to score, and not to generate.

    Raises:
        SpecError: there is no config.json, or it describes what Kindling cannot build, or a model of the other sort.
        StorageError: the store cannot be read.
    """
    config = read_json(store, CONFIG)
    if is_reward_model(config) != scored:
        sorts = ("a language model", "a reward model")
        found, allowed = (sorts[0], sorts[1]) if scored else (sorts[1], sorts[0])
        raise SpecError(explain(store.uri, found=found, allowed=allowed, remedy="name another model"))
    if scored:
        check_labels(config, f"{store.uri}/{CONFIG}")
    return from_config(config, f"{store.uri}/{CONFIG}")


def read_weights(store: ObjectStore, shape: ModelShape, vocab_size: int, *, scored: bool = False) -> Iterator[Named]:
    """The parameters of a model of `shape`, by our names, from the folder `store`: one file in memory at a time.

    Args:
        scored: whether it scores.
        vocab_size: rows of the embedding, padding included. Rows that the folder does not have are like
            those it has (see `_fitted`); rows beyond are its padding.

    Raises:
        SpecError: tensors are missing, unknown or of other sizes; or the folder holds a pickle only.
        IntegrityError: a file is torn.
        StorageError: the store cannot be read.
    """
    with torch.device("meta"):
        model = (build_scored if scored else build_model)(shape, vocab_size)
        wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    heads: dict[str, str] = {}
    for file, names in weight_files(store).items():
        tensors = load_tensors(store, file)
        if absent := sorted(names - tensors.keys()):
            raise _wrong_index(store, f"no {absent[0]} in {file}", f"the tensors that {INDEX} names")
        for theirs, tensor in sorted(tensors.items()):
            if shape.tied_embeddings and theirs in (HEAD, EMBEDDING):
                heads[theirs] = hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()
            for name, part in from_hugging_face(shape, theirs, tensor):
                if name not in wanted and name.endswith(".bias") and not part.any():
                    continue  # a zero bias is no bias
                if _has_rows(name, part):
                    part = _fitted(part, vocab_size)
                if wanted.get(name) != part.shape:
                    raise _misfit(store, f"{theirs} {list(tensor.shape)}", shape)
                del wanted[name]
                yield name, part
    if wanted:
        raise _misfit(store, f"nothing for {', '.join(sorted(wanted)[:3])}", shape)
    if len(set(heads.values())) > 1:
        where, remedy = (
            f"{store.uri}/{CONFIG}: tie_word_embeddings",
            f"set it to false, or leave {HEAD} out of the files",
        )
        raise SpecError(
            explain(where, found=f"true, and {HEAD} is not {EMBEDDING}", allowed="one matrix for both", remedy=remedy)
        )


def read_model(store: ObjectStore, *, scored: bool = False) -> Decoder:
    """The model in the folder `store`, whole, in fp32 on the CPU, in evaluation mode.

    Args:
        scored: whether it is to score, as `build_scored` says, and not to generate.

    Raises:
        SpecError, IntegrityError, StorageError: as `read_shape` and `read_weights`.
    """
    shape, vocab_size = read_shape(store, scored=scored)
    with torch.device("meta"):
        model = (build_scored if scored else build_model)(shape, vocab_size)
    model.to_empty(device="cpu")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in read_weights(store, shape, vocab_size, scored=scored):
            parameters[name].copy_(tensor)
    return model.eval()


def weight_files(store: ObjectStore) -> dict[str, set[str]]:
    """The files of weights, and the tensors that each must have as the index says.

    Raises:
        SpecError: there are none that can be read.
    """
    if store.exists(WHOLE):
        return {WHOLE: set()}
    if store.exists(INDEX):
        return _indexed_files(store)
    pickles = [entry.path for entry in store.list("pytorch_model")]
    raise SpecError(
        explain(
            store.uri,
            found=f"{pickles[0]}, a pickle, which could run code" if pickles else f"no {WHOLE}",
            allowed=f"{WHOLE}, or {INDEX} and its files",
            remedy="save the model with safe_serialization, or correct the URI",
        )
    )


def load_tensors(store: ObjectStore, path: str) -> dict[str, Tensor]:
    """The tensors of one file of weights.

    Raises:
        IntegrityError: it is torn.
    """
    try:
        return load(store.get(path))
    except SafetensorError as error:
        remedy = "fetch or export the model again"
        raise IntegrityError(
            explain(f"{store.uri}/{path}", found=error, allowed="safetensors", remedy=remedy)
        ) from error


def put_json(store: ObjectStore, path: str, document: Config) -> FileEntry:
    """Write a JSON file, as transformers does."""
    return put_file(store, path, (json.dumps(document, indent=2, sort_keys=True) + "\n").encode())


def _has_rows(name: str, tensor: Tensor) -> bool:
    """Whether a tensor has a row for each token; the head of a model that scores is a vector."""
    return name in _VOCABULARY and tensor.dim() == 2


def _plan(
    make: Callable[[ModelShape, int], Decoder], shape: ModelShape, vocab_size: int, file_bytes: int
) -> list[list[str]]:
    """The names of the tensors in each file, found with a model that takes no memory."""
    with torch.device("meta"):
        tensors = to_hugging_face(shape, list(make(shape, vocab_size).named_parameters()))
        files: list[list[str]] = [[]]
        free = file_bytes
        for name, tensor in tensors:
            if tensor.nbytes > free and files[-1]:
                files.append([])
                free = file_bytes
            files[-1].append(name)
            free -= tensor.nbytes
    return files


def _write_weights(store: ObjectStore, tensors: Iterator[Named], plan: list[list[str]]) -> list[FileEntry]:
    """One file for each list of the plan, and the index where there are several."""
    entries, where, total = [], {}, 0
    for number, names in enumerate(plan, start=1):
        path = WHOLE if len(plan) == 1 else f"model-{number:05}-of-{len(plan):05}.safetensors"
        content: dict[str, Tensor] = {}
        for expected in names:
            name, tensor = next(tensors)
            assert name == expected, f"weights come in the model's order: {name} where {expected} belongs"
            content[name] = tensor.contiguous()
            where[name] = path
            total += tensor.nbytes
        entries.append(put_file(store, path, save(content, metadata={"format": "pt"})))
    assert next(tensors, None) is None, "no weights beyond the model's"
    if len(plan) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        entries.append(put_json(store, INDEX, index))
    return entries


def _indexed_files(store: ObjectStore) -> dict[str, set[str]]:
    named = read_json(store, INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(_is_weight_file(file) for file in named.values()):
        raise _wrong_index(store, f"weight_map {named!r:.200}", "files beside it, of safetensors, by their tensors")
    files: dict[str, set[str]] = {}
    for name, file in sorted(named.items()):
        files.setdefault(file, set()).add(name)
    if missing := [file for file in sorted(files) if not store.exists(file)]:
        found = f"no {missing[0]}" + (f", nor {len(missing) - 1} more" if len(missing) > 1 else "")
        raise _wrong_index(store, found, f"the {len(files)} files that {INDEX} names")
    return dict(sorted(files.items()))


def _is_weight_file(file: object) -> bool:
    return isinstance(file, str) and file.endswith(".safetensors") and "/" not in file


def _wrong_index(store: ObjectStore, found: str, allowed: str) -> SpecError:
    return SpecError(explain(store.uri, found=found, allowed=allowed, remedy="fetch or export the model again"))


def _fitted(tensor: Tensor, rows: int) -> Tensor:
    """Its first `rows` rows. Those it lacks are drawn with the mean and deviation of its own, column by column, always
    the same: a token nobody has seen is as likely as another, and unlike the next one. Were each the mean itself, as in
    transformers, what begins a turn could not be told from what ends it."""
    missing, known = rows - tensor.shape[0], tensor.float()
    if missing <= 0:
        return tensor[:rows]
    noise = torch.randn(missing, tensor.shape[1], generator=torch.Generator().manual_seed(0))
    new = known.mean(dim=0) + known.std(dim=0, correction=0) * noise
    return torch.cat([tensor, new.to(tensor.dtype)])


def _misfit(store: ObjectStore, found: str, shape: ModelShape) -> SpecError:
    biases = "with" if shape.bias else "without"
    sizes = f"{shape.layers} layers of width {shape.width}, {biases} biases"
    allowed = f"the tensors of a {shape.architecture} model with {sizes}"
    return SpecError(
        explain(store.uri, found=found, allowed=allowed, remedy="use the sizes of the model in the folder")
    )
