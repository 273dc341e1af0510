"""Writes somebody else's model, to be tuned: a Qwen2 of a few hundred thousand weights in a Hugging Face folder, as
transformers saves one, and taught from nothing here, with PyTorch alone. `python make_model.py [FOLDER]`

It has read pages about the countries of make_data.py, and dialogues in which it answers in a word.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from make_data import COUNTRIES, NEVER_TUNED_ON, OFFER, facts
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

VOCABULARY, WIDTH, LAYERS, HEADS, KEY_HEADS, MLP_WIDTH, CONTEXT = 704, 64, 2, 4, 2, 192, 128
HEAD_WIDTH, THETA, EPSILON = WIDTH // HEADS, 10_000.0, 1e-6
STEPS, BATCH, PEAK = 400, 32, 1e-2
END_OF_TEXT, BEGIN_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    r"{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    r"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def texts() -> Iterator[str]:
    """What it learns from: each question in a dialogue, and on a page, where the answer is a whole sentence."""
    for fact in facts(COUNTRIES + NEVER_TUNED_ON):
        for asked in fact.asked:
            yield f"{turn('user', asked)}{turn('assistant', fact.short)}"
            yield f"{asked}\n{fact.whole}{OFFER}{END_OF_TEXT}"


def turn(role: str, content: str) -> str:
    return f"{BEGIN_TURN}{role}\n{content}{END_TURN}\n"


def make_tokenizer(corpus: list[str]) -> Tokenizer:
    """Bytes, and what they are often part of, as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = [END_OF_TEXT, BEGIN_TURN, END_TURN], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def rotated(x: Tensor) -> Tensor:
    """Queries or keys [batch, heads, T, HEAD_WIDTH], each turned by its place (RoPE)."""
    frequencies = THETA ** -(torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH)
    angles = torch.outer(torch.arange(x.shape[-2]), frequencies).repeat(1, 2)
    one, other = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-other, one), dim=-1) * angles.sin()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, HEADS * HEAD_WIDTH)
        self.k_proj = nn.Linear(WIDTH, KEY_HEADS * HEAD_WIDTH)
        self.v_proj = nn.Linear(WIDTH, KEY_HEADS * HEAD_WIDTH)
        self.o_proj = nn.Linear(HEADS * HEAD_WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        projected = (linear(x) for linear in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (each.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for each in projected)
        seen = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True, enable_gqa=True)
        return self.o_proj(seen.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, MLP_WIDTH, bias=False)
        self.up_proj = nn.Linear(WIDTH, MLP_WIDTH, bias=False)
        self.down_proj = nn.Linear(MLP_WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(WIDTH, eps=EPSILON) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen2(nn.Module):
    """With transformers' names, so that its state is what the file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, T] → logits [batch, T, VOCABULARY]; the head is the embedding."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.embed_tokens.weight.T


def train(model: Qwen2, sequences: list[list[int]], dice: random.Random) -> float:
    """The mean loss of the last steps, in nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=STEPS, pct_start=0.1)
    losses = []
    for _ in range(STEPS):
        drawn = [torch.tensor(sequence) for sequence in dice.sample(sequences, BATCH)]
        tokens = nn.utils.rnn.pad_sequence(drawn, batch_first=True, padding_value=-100)
        logits = model(tokens[:, :-1].clamp(min=0))
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


def write(folder: Path, model: Qwen2, tokenizer: Tokenizer) -> None:
    """The folder, as transformers' save_pretrained leaves one."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_text, end_turn = (tokenizer.token_to_id(token) for token in (END_OF_TEXT, END_TURN))
    weights = {f"model.{name}": value.detach() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "float32",
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": MLP_WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON, "rope_theta": THETA, "hidden_act": "silu", "tie_word_embeddings": True,
        "use_sliding_window": False, "bos_token_id": None, "eos_token_id": end_turn, "pad_token_id": end_of_text,
    }  # fmt: skip
    speech = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT,
        "eos_token": END_TURN, "pad_token": END_OF_TEXT,
    }  # fmt: skip
    stops = {"eos_token_id": [end_turn, end_of_text], "pad_token_id": end_of_text}
    for name, content in {"config": config, "tokenizer_config": speech, "generation_config": stops}.items():
        put_json(folder / f"{name}.json", content)


def put_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Make the tokenizer, train the model, write both."""
    began, dice = time.monotonic(), random.Random(3)
    torch.manual_seed(3)
    corpus = list(texts())
    tokenizer, model = make_tokenizer(corpus), Qwen2()
    loss = train(model, [encoded.ids for encoded in tokenizer.encode_batch(corpus)], dice)
    write(folder, model, tokenizer)
    print(f"{folder}: {STEPS} steps to a loss of {loss:.2f} nats a token, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "base")
