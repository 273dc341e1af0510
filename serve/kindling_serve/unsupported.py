"""Fields that OpenAI, vLLM or llama.cpp have, that change the answer, and that this server does not honour.

Each with the values that change nothing. Any other is refused by name: an answer that ignores what was asked for looks
like one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kindling_api.errors import SpecError, explain
from kindling_serve.errors import shown

HARMLESS: dict[str, tuple[Any, ...]] = {
    # penalties and biases
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repeat_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({}, []),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "logits_processors": ([],),
    # what ends an answer, and what is shown of it
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "n_predict": (-1,),
    "truncate_prompt_tokens": (),
    "prompt_logprobs": (),
    "return_tokens_as_token_ids": (False,),
    # other ways of drawing
    "use_beam_search": (False,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "top_a": (0,),
    "top_n_sigma": (-1,),
    "mirostat": (0,),
    "dynatemp_range": (0,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "samplers": ([],),
    # the form of the answer
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "grammar": ("",),
    "json_schema": ({},),
    "modalities": (["text"], []),
    "audio": (),
    "verbosity": ("medium",),
    "reasoning_effort": ("none",),
    "web_search_options": (),
    # tools
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    # how the dialogue becomes a prompt
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "add_special_tokens": (),
    "documents": ([],),
    "echo": (False,),
    "suffix": ("",),
    "prompt_embeds": (),
    "lora": ([],),
}


def check_unsupported(more: Mapping[str, Any]) -> None:
    """Looks at the fields of a request that its model does not have.

    Raises:
        SpecError: one of them asks for what this server does not do.
    """
    for name, value in more.items():
        harmless = HARMLESS.get(name)
        if harmless is None or value is None or value in harmless:
            continue
        allowed = f"{' or '.join(map(repr, harmless))}, as this server" if harmless else "no such field, as this server"
        remedy = "leave it out"
        raise SpecError(explain(name, found=shown(value), allowed=f"{allowed} does not honour it", remedy=remedy))
