"""Reading and writing a Hugging Face folder in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from tokenizers import Tokenizer
from torch import Tensor

from kindling_api.errors import IntegrityError, NotFoundError, SpecError, explain
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import FileEntry
from kindling_storage import ObjectStore
from kindling_storage.commit import put_file
from kindling_trainer.checkpoint.huggingface.config import Config, from_config, judges, judging, to_config
from kindling_trainer.checkpoint.huggingface.weights import Named, from_hugging_face, to_hugging_face
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.scored import build_scored

FILE_BYTES = 5 * 10**9
"""The largest file of weights, as transformers cuts them."""

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
CHAT_TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_VOCABULARY = ("embedding.weight", "head.weight")  # one row a token


@dataclass(frozen=True)
class ChatFiles:
    """What a folder says of dialogues, to whoever loads it."""

    template: str
    """Jinja, as `apply_chat_template` renders it: without generation markers, which few servers know."""
    end_of_turn: int
    """The token after which the other one speaks, and generation stops."""


def export(
    store: ObjectStore,
    weights: Iterable[Named],
    shape: ModelShape,
    *,
    vocab_size: int,
    tokenizer: bytes,
    end_of_document: int | None,
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
        chat: how dialogues are written, if the model has learnt that.
        scored: whether it judges, and AutoModelForSequenceClassification loads it.

    Returns:
        What was written, by path.

    Raises:
        StorageError: the store cannot be written.
    """
    cut = ((name, tensor[:vocab_size] if _has_rows(name, tensor) else tensor) for name, tensor in weights)
    plan = _plan(build_scored if scored else build_model, shape, vocab_size, file_bytes)
    entries = _write_weights(store, to_hugging_face(shape, cut), plan)
    stop = end_of_document if chat is None else chat.end_of_turn
    stops = list(dict.fromkeys(token for token in (end_of_document, stop) if token is not None))
    config = to_config(shape, vocab_size, end_of_document)
    documents = {
        CONFIG: judging(config, stop) if scored else config,
        GENERATION: {"bos_token_id": end_of_document, "eos_token_id": stop if chat is None else stops},
        TOKENIZER_CONFIG: _tokenizer_config(tokenizer, stop, end_of_document, shape.context, chat),
    }
    entries += [put_file(store, path, _to_json(document)) for path, document in documents.items()]
    entries.append(put_file(store, TOKENIZER, tokenizer))
    if chat is not None:
        entries.append(put_file(store, CHAT_TEMPLATE, chat.template.encode()))
    return sorted(entries, key=lambda entry: entry.path)


def read_shape(store: ObjectStore, *, scored: bool = False) -> tuple[ModelShape, int]:
    """The shape of the model in the folder `store`, and its vocabulary's size.

    Args:
        scored: whether it is to judge, and not to speak.

    Raises:
        SpecError: there is no config.json, or it describes what Kindling cannot build, or a model of the other sort.
        StorageError: the store cannot be read.
    """
    config = _read_json(store, CONFIG)
    if judges(config) != scored:
        sorts = ("a language model", "a reward model")
        found, allowed = (sorts[0], sorts[1]) if scored else (sorts[1], sorts[0])
        raise SpecError(explain(store.uri, found=found, allowed=allowed, remedy="name another model"))
    return from_config(config, f"{store.uri}/{CONFIG}")


def read_weights(store: ObjectStore, shape: ModelShape, vocab_size: int, *, scored: bool = False) -> Iterator[Named]:
    """The parameters of a model of `shape`, by our names, from the folder `store`: one file in memory at a time.

    Args:
        scored: whether it judges.
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
    for file in _weight_files(store):
        for theirs, tensor in sorted(_load(store, file).items()):
            for name, part in from_hugging_face(shape, theirs, tensor):
                if not shape.bias and name.endswith(".bias") and not part.any():
                    continue  # a zero bias is no bias
                if _has_rows(name, part):
                    part = _fitted(part, vocab_size)
                if wanted.get(name) != part.shape:
                    raise _misfit(store, f"{theirs} {list(tensor.shape)}", shape)
                del wanted[name]
                yield name, part
    if wanted:
        raise _misfit(store, f"nothing for {', '.join(sorted(wanted)[:3])}", shape)


def read_model(store: ObjectStore, *, scored: bool = False) -> Decoder:
    """The model in the folder `store`, whole, in fp32 on the CPU, in evaluation mode.

    Args:
        scored: whether it is to judge, as `build_scored` says, and not to speak.

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


def read_tokenizer(store: ObjectStore) -> tuple[Tokenizer, int | None]:
    """The tokenizer in the folder `store`, and the token that ends a document.

    Raises:
        SpecError: there is no tokenizer.json, or it is none.
        StorageError: the store cannot be read.
    """
    where = f"{store.uri}/{TOKENIZER}"
    allowed, remedy = "a tokenizer in the form of the tokenizers library", "export the model again"
    try:
        tokenizer = Tokenizer.from_str(store.get(TOKENIZER).decode())
    except NotFoundError as error:
        raise SpecError(explain(where, found="no such file", allowed=allowed, remedy=remedy)) from error
    except Exception as error:  # the library raises Exception itself
        raise SpecError(explain(where, found=error, allowed=allowed, remedy=remedy)) from error
    path = GENERATION if store.exists(GENERATION) else CONFIG
    end = _read_json(store, path).get("eos_token_id")
    return tokenizer, end[0] if isinstance(end, list) else end


def read_stops(store: ObjectStore) -> frozenset[int]:
    """Every token that ends what the model in the folder `store` says.

    Raises:
        SpecError: there is neither generation_config.json nor config.json, or it is no JSON.
        StorageError: the store cannot be read.
    """
    end = _read_json(store, GENERATION if store.exists(GENERATION) else CONFIG).get("eos_token_id")
    return frozenset(end if isinstance(end, list) else [] if end is None else [end])


def read_chat_template(store: ObjectStore) -> str | None:
    """The chat template in the folder `store`, if it has one.

    Raises:
        SpecError: a file that may hold it is no JSON.
        StorageError: the store cannot be read.
    """
    if store.exists(CHAT_TEMPLATE):
        return store.get(CHAT_TEMPLATE).decode()
    template = _read_json(store, TOKENIZER_CONFIG).get("chat_template") if store.exists(TOKENIZER_CONFIG) else None
    return template if isinstance(template, str) else None  # some have several, for tools


def _has_rows(name: str, tensor: Tensor) -> bool:
    """Whether a tensor has a row for each token; the head of a model that judges is a vector."""
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
        entries.append(put_file(store, INDEX, _to_json(index)))
    return entries


def _tokenizer_config(
    tokenizer: bytes, stop: int | None, end_of_document: int | None, context: int, chat: ChatFiles | None
) -> Config:
    config: Config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    tokens = Tokenizer.from_str(tokenizer.decode())
    if stop is not None:
        config["eos_token"] = tokens.id_to_token(stop)
    if end_of_document is not None:
        config["bos_token"] = tokens.id_to_token(end_of_document)
    if chat is not None:
        # Older readers look for the template here. Texts in a batch are filled up in front, so that all end together.
        config |= {"chat_template": chat.template, "padding_side": "left", "pad_token": config["eos_token"]}
    return config


def _weight_files(store: ObjectStore) -> list[str]:
    if store.exists(WHOLE):
        return [WHOLE]
    if store.exists(INDEX):
        files = _read_json(store, INDEX).get("weight_map")
        if isinstance(files, dict) and files:
            return sorted(set(files.values()))
    pickles = [entry.path for entry in store.list("pytorch_model")]
    raise SpecError(
        explain(
            store.uri,
            found=f"{pickles[0]}, a pickle, which could run code" if pickles else f"no {WHOLE}",
            allowed=f"{WHOLE}, or {INDEX} and its files",
            remedy="save the model with safe_serialization, or correct the URI",
        )
    )


def _load(store: ObjectStore, path: str) -> dict[str, Tensor]:
    try:
        return load(store.get(path))
    except SafetensorError as error:
        remedy = "fetch or export the model again"
        raise IntegrityError(
            explain(f"{store.uri}/{path}", found=error, allowed="safetensors", remedy=remedy)
        ) from error


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


def _read_json(store: ObjectStore, path: str) -> Config:
    where, remedy = f"{store.uri}/{path}", "give a folder that transformers' save_pretrained or Kindling wrote"
    try:
        document = json.loads(store.get(path))
    except NotFoundError as error:
        raise SpecError(explain(where, found="no such file", allowed="a JSON object", remedy=remedy)) from error
    except ValueError as error:
        raise SpecError(explain(where, found=error, allowed="a JSON object", remedy=remedy)) from error
    if not isinstance(document, dict):
        raise SpecError(explain(where, found=type(document).__name__, allowed="a JSON object", remedy=remedy))
    return document


def _to_json(document: Config) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
