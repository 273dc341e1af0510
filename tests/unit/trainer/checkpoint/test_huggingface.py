"""Folders that transformers reads as we do, and that we read as it does."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kindling_api.errors import IntegrityError, SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_storage import ObjectStore, open_store
from kindling_trainer.checkpoint.huggingface import export, read_model, read_shape, read_weights
from kindling_trainer.inference.batching import continue_tokens
from kindling_trainer.inference.generate import load_model
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize

VOCAB = 61
SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 64}
LLAMA = {"architecture": "llama", "kv_heads": 4, **SIZES}
GPT2 = {"architecture": "gpt2", "kv_heads": 4, **SIZES}
SHAPES = {
    "llama": LLAMA,
    "llama-grouped-padded": LLAMA | {"kv_heads": 2, "vocab_multiple": 64},
    "llama-tied": LLAMA | {"tied_embeddings": True, "rope_theta": 5e5, "norm_epsilon": 1e-6},
    "gpt2": GPT2 | {"bias": True, "tied_embeddings": True, "dropout": 0.1},
    "gpt2-no-bias-padded": GPT2 | {"tied_embeddings": True, "vocab_multiple": 64},
    "gpt2-untied-one-layer": GPT2 | {"layers": 1, "bias": True},
}
every_shape = pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
TEXT = "def hello(name):\n    return f'Héllo {name} 🙂'\n"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "model").as_uri())


def scrambled(sizes: dict[str, Any], vocab_size: int = VOCAB) -> Decoder:
    """A model whose every parameter, norms and biases too, has values of its own, large enough to tell apart."""
    shape = ModelShape.model_validate(sizes)
    model = build_model(shape, shape.padded_vocab(vocab_size))
    initialize(model, 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def save(model: Decoder, store: ObjectStore, tokenizer: Tokenizer | None = None, **options: Any) -> list[str]:
    tokenizer = tokenizer or char_tokenizer()
    entries = export(
        store,
        ((name, parameter.detach()) for name, parameter in model.named_parameters()),
        model.shape,
        vocab_size=options.pop("vocab_size", VOCAB),
        tokenizer=tokenizer.to_str().encode(),
        end_of_document=tokenizer.token_to_id("<|endoftext|>"),
        **options,
    )
    return [entry.path for entry in entries]


def char_tokenizer() -> Tokenizer:
    letters = list(dict.fromkeys(TEXT + string.ascii_letters + string.digits))[:VOCAB]
    tokenizer = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(letters)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_level_tokenizer(vocab_size: int) -> Tokenizer:
    """Byte-level BPE; with 257 tokens, one a byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=vocab_size > 257)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    return tokenizer


def folder(store: ObjectStore) -> Path:
    path = store.local_path("config.json")
    assert path is not None
    return path.parent


@every_shape
def test_transformers_computes_our_logits_and_our_greedy_text(sizes: dict[str, Any], store: ObjectStore) -> None:
    model = scrambled(sizes)
    save(model, store)
    theirs, loading = AutoModelForCausalLM.from_pretrained(folder(store), output_loading_info=True)
    assert not any(loading.values())  # nothing missing, unexpected or of another size
    tokens = torch.randint(0, VOCAB, (2, 64), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens)[..., :VOCAB], rtol=0, atol=1e-5)
    prompt = tokens[:1, :10]
    expected = theirs.generate(prompt, do_sample=False, max_new_tokens=32, pad_token_id=0)[0, 10:].tolist()
    greedy = GenerationOptions(max_tokens=32, temperature=0)
    assert list(continue_tokens(model, prompt[0].tolist(), greedy, VOCAB)) == expected


@every_shape
def test_a_folder_read_back_is_the_same_model(sizes: dict[str, Any], store: ObjectStore) -> None:
    model = scrambled(sizes)
    save(model, store)
    weights = dict(read_weights(store, model.shape, model.embedding.num_embeddings))
    for name, parameter in model.named_parameters():
        rows = VOCAB if name in ("embedding.weight", "head.weight") else None
        assert torch.equal(weights[name][:rows], parameter[:rows]), name
    tokens = torch.arange(VOCAB)[None]
    torch.testing.assert_close(read_model(store)(tokens), model(tokens)[..., :VOCAB], rtol=0, atol=1e-6)


def test_rows_that_a_folder_does_not_have_are_like_those_it_has_and_unlike_each_other(store: ObjectStore) -> None:
    model = scrambled(SHAPES["llama-grouped-padded"])
    save(model, store)
    embedding, again = (dict(read_weights(store, model.shape, 1061))["embedding.weight"] for _ in range(2))
    assert torch.equal(embedding, again)
    known, new = embedding[:61], embedding[61:]
    deviation = known.std(dim=0, correction=0)
    torch.testing.assert_close(new.std(dim=0, correction=0) / deviation, torch.ones_like(deviation), rtol=0, atol=0.1)
    assert ((new.mean(dim=0) - known.mean(dim=0)).abs() < 0.15 * deviation).all()
    assert torch.pdist(new[:8]).min() > deviation.norm() / 2


@pytest.mark.parametrize("vocab_size", [257, 300], ids=["byte", "bpe"])
def test_the_tokenizer_round_trips_with_its_end_token(vocab_size: int, store: ObjectStore) -> None:
    tokenizer = byte_level_tokenizer(vocab_size)
    size = tokenizer.get_vocab_size()
    save(scrambled(SHAPES["gpt2"], size), store, tokenizer, vocab_size=size)
    theirs = AutoTokenizer.from_pretrained(folder(store))
    assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).ids
    assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
    assert theirs.eos_token_id == tokenizer.token_to_id("<|endoftext|>")
    assert theirs.model_max_length == 64
    loaded = load_model(folder(store))
    assert loaded.end_of_document == theirs.eos_token_id
    assert loaded.tokenizer.encode(TEXT).ids == tokenizer.encode(TEXT).ids


def test_a_tokenizer_of_characters_round_trips_without_an_end_token(store: ObjectStore) -> None:
    tokenizer = char_tokenizer()
    save(scrambled(SHAPES["gpt2"]), store, tokenizer)
    theirs = AutoTokenizer.from_pretrained(folder(store))
    assert theirs(TEXT)["input_ids"] == tokenizer.encode(TEXT).ids
    assert theirs.decode(theirs(TEXT)["input_ids"]) == TEXT
    assert theirs.eos_token is None
    assert AutoModelForCausalLM.from_pretrained(folder(store)).generation_config.eos_token_id is None
    assert load_model(folder(store)).end_of_document is None


@pytest.mark.parametrize("sizes", [SHAPES["llama"], SHAPES["gpt2"]], ids=["llama", "gpt2"])
def test_weights_beyond_one_file_are_cut_and_indexed(sizes: dict[str, Any], store: ObjectStore) -> None:
    model = scrambled(sizes)
    written = save(model, store, file_bytes=30_000)
    files = [path for path in written if path.endswith(".safetensors")]
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads(store.get("model.safetensors.index.json"))
    assert set(index["weight_map"].values()) == set(files)
    tokens = torch.arange(VOCAB)[None]
    theirs = AutoModelForCausalLM.from_pretrained(folder(store))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=0, atol=1e-5)
        torch.testing.assert_close(read_model(store)(tokens), model(tokens), rtol=0, atol=0)


def test_one_model_gives_the_same_bytes_each_time(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        store = open_store((tmp_path / name).as_uri())
        save(scrambled(SHAPES["gpt2"]), store)
        digests.append({info.path: store.get(info.path) for info in store.list()})
    assert digests[0] == digests[1]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_llama_that_transformers_saved_is_read(tied: bool, store: ObjectStore, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=tied,
    )
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    shape, vocab_size = read_shape(store)
    assert (shape.kv_heads, shape.rope_theta, shape.tied_embeddings, vocab_size) == (2, 5000.0, tied, VOCAB)
    tokens = torch.randint(0, VOCAB, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(read_model(store)(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prefix", ["transformer.", ""], ids=["as saved", "as OpenAI's files"])
def test_a_gpt2_that_transformers_saved_is_read(prefix: str, store: ObjectStore, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=VOCAB, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    theirs = GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    if not prefix:
        named = {name.removeprefix("transformer."): tensor for name, tensor in theirs.transformer.state_dict().items()}
        named["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)  # the mask, which old files hold
        save_file(named, tmp_path / "model" / "model.safetensors")
    tokens = torch.randint(0, VOCAB, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(read_model(store)(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)


LLAMA_CONFIG = {
    "model_type": "llama", "vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 16,
}  # fmt: skip
GPT2_CONFIG = {"model_type": "gpt2", "vocab_size": 8, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            {"model_type": "mamba", "state_size": 16},
            "model_type: found mamba (the nearest is llama, which has no state_size); allowed: one of llama, mistral,"
            " qwen2, qwen3, smollm3, olmo2, gemma3_text, gpt2.",
        ),
        (
            LLAMA_CONFIG | {"rope_scaling": {"type": "dynamic", "factor": 2}},
            "rope_scaling: found {'type': 'dynamic', 'factor': 2}; allowed: rotary positions of the kind default,"
            " linear, llama3, yarn.",
        ),
        (LLAMA_CONFIG | {"mlp_bias": True}, "mlp_bias: found True; allowed: False."),
        (LLAMA_CONFIG | {"hidden_act": "gelu"}, "hidden_act: found gelu; allowed: silu or swish."),
        (
            LLAMA_CONFIG | {"head_dim": 7},
            "sizes: found a head width of 7; allowed: an even one, since RoPE turns pairs.",
        ),
        (
            LLAMA_CONFIG | {"num_attention_heads": 3},
            "sizes: found width 16, 3 heads, 3 key-value heads; allowed: sizes that divide.",
        ),
        (
            LLAMA_CONFIG | {"num_attention_heads": 16},
            "sizes: found a head width of 1; allowed: an even one, since RoPE turns pairs.",
        ),
        (LLAMA_CONFIG | {"quantization_config": {}}, "quantization_config: found {}; allowed: None."),
        (
            LLAMA_CONFIG | {"hidden_size": "16"},
            "hidden_size: found 16, of type str; allowed: a number.",
        ),
        (
            GPT2_CONFIG | {"activation_function": "relu"},
            "activation_function: found relu; allowed: gelu_new or gelu_pytorch_tanh.",
        ),
        (LLAMA_CONFIG | {"vocab_size": None}, "vocab_size: found None; allowed: a whole number from 1."),
        (
            LLAMA_CONFIG | {"rope_parameters": "yarn"},
            "rope_scaling: found yarn; allowed: rotary positions of the kind default, linear, llama3, yarn.",
        ),
        ({"model_type": "gpt2", "n_layer": 1}, "n_head: found nothing; allowed: a size."),
        (
            LLAMA_CONFIG | {"rope_scaling": {"rope_type": "linear", "factor": 2, "mscale": 3}},
            "rope_scaling.mscale: found 3; allowed: of linear, factor.",
        ),
        (
            LLAMA_CONFIG | {"rope_scaling": {"rope_type": "llama3", "factor": 2}},
            "rope_scaling.low_freq_factor: found nothing; allowed: a number.",
        ),
        (
            LLAMA_CONFIG | {"model_type": "gemma3_text", "final_logit_softcapping": 30.0},
            "final_logit_softcapping: found 30.0; allowed: None.",
        ),
        (LLAMA_CONFIG | {"attention_dropout": 0.1}, "attention_dropout: found 0.1; allowed: 0.0."),
        (
            LLAMA_CONFIG | {"model_type": "qwen3", "layer_types": ["sliding_attention"]},
            "sliding_window: found None; allowed: positions, since there are layers of sliding_attention.",
        ),
        (
            LLAMA_CONFIG | {"model_type": "qwen2", "layer_types": ["chunked_attention"]},
            "layer_types: found ['chunked_attention']; allowed: full_attention or sliding_attention for each of 1"
            " layers.",
        ),
        (GPT2_CONFIG | {"attn_pdrop": 0.2}, "attn_pdrop: found 0.2; allowed: 0.1, as resid_pdrop."),
    ],
    ids=[
        "kind",
        "rope",
        "bias",
        "activation",
        "head",
        "divide",
        "odd head",
        "quantized",
        "type",
        "gelu",
        "vocabulary",
        "rope text",
        "missing",
        "unknown part of rope",
        "missing part of rope",
        "caps",
        "dropout",
        "no window",
        "other layers",
        "unlike dropout",
    ],
)
def test_a_model_that_ours_cannot_compute_is_refused(config: dict[str, Any], fault: str, store: ObjectStore) -> None:
    store.put("config.json", json.dumps(config).encode())
    with pytest.raises(SpecError) as refusal:
        read_shape(store)
    remedy = "To fix it: start from a model that Kindling can build."
    assert str(refusal.value) == f"{store.uri}/config.json: {fault} {remedy}"


def test_a_field_that_nobody_knows_is_refused_by_name(store: ObjectStore) -> None:
    store.put("config.json", json.dumps(LLAMA_CONFIG | {"logit_scale": 0.5}).encode())
    with pytest.raises(SpecError) as refusal:
        read_shape(store)
    assert str(refusal.value) == (
        f"{store.uri}/config.json: logit_scale: found 0.5; allowed: the fields that are known of a llama model. To fix"
        " it: remove it if it does not change what the model computes; otherwise start from a model that Kindling can"
        " build."
    )


def test_a_folder_without_a_model_is_refused(store: ObjectStore) -> None:
    with pytest.raises(SpecError) as refusal:
        load_model(store)
    assert str(refusal.value) == (
        f"{store.uri}/config.json: found no such file; allowed: a JSON object."
        " To fix it: give a folder that transformers' save_pretrained or Kindling wrote."
    )


def test_a_pickle_is_never_opened(store: ObjectStore) -> None:
    store.put("config.json", json.dumps(GPT2_CONFIG).encode())
    store.put("pytorch_model.bin", b"cos\nsystem\n")
    store.put("tokenizer.json", Tokenizer(models.BPE()).to_str().encode())
    with pytest.raises(SpecError) as refusal:
        load_model(store)
    assert str(refusal.value) == (
        f"{store.uri}: found pytorch_model.bin, a pickle, which could run code; allowed: model.safetensors, or"
        " model.safetensors.index.json and its files. To fix it: save the model with safe_serialization, or correct"
        " the URI."
    )


@pytest.mark.parametrize(
    ("later", "found"),
    [(["<pad>"], "'<pad>', which is token 61"), (["<a>", "<b>", "<c>"], "'<a>', which is token 61, and 2 more")],
    ids=["one", "several"],
)
def test_a_tokenizer_larger_than_the_embedding_is_refused_before_the_weights_are_read(
    later: list[str], found: str, store: ObjectStore
) -> None:
    save(scrambled(SHAPES["llama"]), store)
    tokenizer = char_tokenizer()
    tokenizer.add_tokens(later)
    store.put("tokenizer.json", tokenizer.to_str().encode())
    store.delete("model.safetensors")
    with pytest.raises(SpecError) as refusal:
        load_model(store)
    assert str(refusal.value) == (
        f"{store.uri}/tokenizer.json: found {found}; allowed: tokens below 61, the rows of the embedding (vocab_size in"
        " config.json). To fix it: save the model again after resize_token_embeddings, or take these tokens out of its"
        " files."
    )


def test_a_special_token_may_lie_beyond_the_embedding(store: ObjectStore) -> None:
    """As in Gemma 3 of 1B, whose tokenizer has one for images."""
    save(scrambled(SHAPES["llama"]), store)
    tokenizer = char_tokenizer()
    tokenizer.add_special_tokens(["<image>"])
    store.put("tokenizer.json", tokenizer.to_str().encode())
    assert load_model(store).vocab_size == VOCAB


def test_a_torn_file_is_told_as_such(store: ObjectStore) -> None:
    save(scrambled(SHAPES["llama"]), store)
    store.put("model.safetensors", store.get("model.safetensors")[:-100])
    with pytest.raises(IntegrityError, match=r"model\.safetensors: found .*; allowed: safetensors"):
        load_model(store)


def test_a_shard_that_is_missing_is_named(store: ObjectStore) -> None:
    written = save(scrambled(SHAPES["llama"]), store, file_bytes=30_000)
    files = [path for path in written if path.endswith(".safetensors")]
    store.delete(files[1])
    with pytest.raises(SpecError) as refusal:
        load_model(store)
    assert str(refusal.value) == (
        f"{store.uri}: found no {files[1]}; allowed: the {len(files)} files that model.safetensors.index.json names."
        " To fix it: fetch or export the model again."
    )


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ({"lm_head.weight": "../model.safetensors"}, "found weight_map .*; allowed: files beside it"),
        ({"lm_head.weight": 1}, "found weight_map .*; allowed: files beside it"),
        ([], r"found weight_map \[\]; allowed: files beside it"),
        (
            {"lm_head.weight": "first.safetensors"},
            r"found no lm_head\.weight in first\.safetensors; allowed: the tensors that .* names",
        ),
    ],
    ids=["elsewhere", "number", "list", "other file"],
)
def test_an_index_that_is_wrong_is_refused(index: Any, fault: str, store: ObjectStore) -> None:
    written = save(scrambled(SHAPES["llama"]), store, file_bytes=30_000)
    store.put("first.safetensors", store.get(min(path for path in written if path.endswith(".safetensors"))))
    store.put("model.safetensors.index.json", json.dumps({"weight_map": index}).encode())
    with pytest.raises(SpecError, match=fault):
        load_model(store)


def test_a_head_that_is_to_be_the_embedding_and_is_not_is_refused(store: ObjectStore) -> None:
    save(scrambled(SHAPES["llama-tied"]), store)
    path = folder(store) / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    load_model(store)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, path)
    with pytest.raises(SpecError) as refusal:
        load_model(store)
    assert str(refusal.value) == (
        f"{store.uri}/config.json: tie_word_embeddings: found true, and lm_head.weight is not"
        " model.embed_tokens.weight; allowed: one matrix for both. To fix it: set it to false, or leave lm_head.weight"
        " out of the files."
    )


def test_a_bare_llama_is_read_where_its_head_is_tied(store: ObjectStore) -> None:
    model = scrambled(SHAPES["llama-tied"])
    save(model, store)
    path = folder(store) / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    tokens = torch.arange(VOCAB)[None]
    torch.testing.assert_close(read_model(store)(tokens), model(tokens), rtol=0, atol=0)


def test_weights_of_other_sizes_are_refused(store: ObjectStore) -> None:
    save(scrambled(SHAPES["llama"]), store)
    wider = ModelShape.model_validate(SHAPES["llama"] | {"ffn_width": 64})
    with pytest.raises(SpecError) as refusal:
        dict(read_weights(store, wider, VOCAB))
    assert str(refusal.value) == (
        f"{store.uri}: found model.layers.0.mlp.down_proj.weight [32, 48]; allowed: the tensors of a llama model with"
        " 2 layers of width 32, without biases. To fix it: use the sizes of the model in the folder."
    )


def test_missing_layers_are_refused(store: ObjectStore) -> None:
    save(scrambled(SHAPES["llama"]), store)
    deeper = ModelShape.model_validate(SHAPES["llama"] | {"layers": 3})
    with pytest.raises(SpecError, match=r"found nothing for layers\.2\.attention\.key\.weight"):
        dict(read_weights(store, deeper, VOCAB))
