"""Fields that clients send and that the server has no part for: which of them change nothing.

Their names are those of OpenAI's public API reference, and of what clients of vLLM and llama.cpp
customarily send. One stands here if passing over it cannot change what an answer says or means
(``ACCOUNTS``), or with the values by which it asks for nothing; with any other it is refused.
"""

from __future__ import annotations

from typing import Any

Off = dict[str, tuple[Any, ...]]

# Whom an answer is for, how it is billed, kept and counted, and how fast it should come.
ACCOUNTS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
# Of requests of text: a guess of the answer that could make it come sooner, and names and places
# of other servers.
HINTS = frozenset({"cache_prompt", "id_slot", "prediction", "priority", "request_id"})

CHAT: Off = {
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "moderation": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    "best_of": (None, 1),
    "suffix": (None, ""),
    # Of vLLM and llama.cpp.
    "add_generation_prompt": (None, True),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "continue_final_message": (None, False),
    "documents": (None, []),
    "echo": (None, False),
    "grammar": (None, ""),
    "include_stop_str_in_output": (None, False),
    "length_penalty": (None, 1),
    "mirostat": (None, 0),
    "prompt_logprobs": (None,),
    "return_tokens_as_token_ids": (None, False),
    "skip_special_tokens": (None, True),
    "spaces_between_special_tokens": (None, True),
    "truncate_prompt_tokens": (None,),
    "typical_p": (None, 1),
    "use_beam_search": (None, False),
}
RESPONSES: Off = {
    "access_programs": (None, []),
    "background": (None, False),
    "background_options": (None,),
    "context_management": (None, []),
    "conversation": (None,),
    "image": (None,),
    "moderation": (None,),
    "previous_response_id": (None,),
    "prompt": (None,),
    "reasoning": (
        None,
        {},
        {"effort": None},
        {"effort": "none"},
        {"effort": None, "summary": None},
    ),
    "truncation": (None, "disabled"),
}
IMAGES: Off = {
    "background": (None, "auto", "opaque"),
    "complexity": (None,),
    "frame_count": (None, 1),
    "frame_duration_ms": (None,),
    "output_compression": (None, 100),
    "output_format": (None, "png"),
    "quality": (None, "auto", "standard"),
    "style": (None,),
    "svg": (None,),
}
