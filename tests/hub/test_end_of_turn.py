"""An answer's end is always learned, whatever a published chat template writes."""

from __future__ import annotations

from typing import Any

import pytest

from modelwright.data.codecs import published_text, text
from modelwright.errors import ModelwrightError
from modelwright.types import Example, Turn, text_turn

WITHOUT = (
    "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)
WITH = WITHOUT.replace("{{ m.content }}", "{{ m.content }}{{ eos_token }}")


def codec(template: str | None) -> published_text.Codec:
    own = text.Codec.fit([Example((text_turn("document", "a user asks, it answers"),))])
    facts: dict[str, Any] = {"vocabulary": own.vocabulary, "ends": [own.end], "settings": {}}
    facts |= {"template": template, "tokens": {"eos_token": "<|end|>"}}
    return published_text.Codec(own.save()["tokenizer.json"], facts)


def chat(*learned: bool) -> list[Turn]:
    turns = [text_turn("user", "ask"), text_turn("assistant", "said", learn=learned[0])]
    if len(learned) > 1:
        turns += [text_turn("user", "more"), text_turn("assistant", "it", learn=learned[1])]
    return turns


@pytest.mark.parametrize("template", [None, WITH, WITHOUT])
def test_the_last_learned_token_is_an_end(template: str | None) -> None:
    made = codec(template)
    for turns in (chat(True), chat(False, True)):
        tokens, learn = made.layout(turns)
        learned = [t for t, x in zip(tokens, learn, strict=True) if x]
        assert learned[-1] == made.end
        assert made.text(learned[:-1]).strip() == turns[-1].text


def test_a_template_without_ends_cannot_teach_several_turns() -> None:
    assert [x for x in codec(WITH).layout(chat(True, True))[1] if x]
    with pytest.raises(ModelwrightError, match="with no special token, so it could"):
        codec(WITHOUT).layout(chat(True, True))
