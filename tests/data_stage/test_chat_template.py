"""Chat templates: rendered as published models mean them, and never let out of their cage."""

from __future__ import annotations

import json
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelwright.data.chat_template import ChatTemplate
from modelwright.errors import ModelwrightError

MESSAGES = [{"role": "user", "content": "hi <b> é🙂"}, {"role": "assistant", "content": "yo"}]

# The layout that many published models share, written here anew.
LAYOUT = """\
{% for m in messages %}
    {%- if m.role not in ['user', 'assistant', 'system'] %}
        {{- raise_exception('unknown role ' ~ m.role) }}
    {%- endif %}
<|{{ m['role'] }}|>
{% generation %}{{ m.content | trim }}{% endgeneration %}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}
"""


def render(template: str, seconds: float = 1.0, **limits: int) -> str:
    with ChatTemplate(template, {"eos_token": "</s>"}, seconds=seconds, **limits) as made:
        return made.render(MESSAGES)


def test_messages_become_text():
    with ChatTemplate(LAYOUT, {"eos_token": "</s>"}) as made:
        body = "<|user|>\nhi <b> é🙂</s>\n<|assistant|>\nyo</s>\n"
        assert made.render(MESSAGES) == body
        assert made.render(MESSAGES, add_generation_prompt=True) == body + "<|assistant|>\n"
        with pytest.raises(ModelwrightError, match="unknown role wizard"):
            made.render([{"role": "wizard", "content": ""}])
        assert made.render(MESSAGES) == body  # a refusal leaves it as it was


def test_loops_may_be_left_and_values_shown_as_json():
    assert render("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}") == "user"
    assert render("{{ messages | tojson }}") == json.dumps(MESSAGES, ensure_ascii=False)
    with ChatTemplate("{{ tools[0].name }}") as made:
        assert made.render([], tools=[{"name": "look_up"}]) == "look_up"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ raise_exception.__globals__['sys'].modules }}",
        "{{ (messages|attr('__class__')).__base__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ self._TemplateReference__context.environment.globals }}",
        "{% set f = namespace %}{{ f.__init__.__builtins__ }}",
        "{{ messages.__reduce_ex__(2) }}",
        "{{ ''.join.__self__.__class__.__bases__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ],
)
def test_nothing_gets_out_of_the_sandbox(template):
    with pytest.raises(ModelwrightError, match="correct or replace it") as raised:
        render(template)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ lipsum.__globals__ }}",
        "{{ messages|attr('__class__') }}",
        "{{ '%s' % raise_exception.__code__ }}",
    ],
)
def test_what_is_hidden_is_nothing(template):
    assert render(template) == ""


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "longer",
        ),
        ("{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 4,194,304"),
        ("{{ 'a' * 10000000 }}", "more than 4,194,304"),
        ("{{ 'a' * 10000000000 }}", "memory"),
        ("{{ '%10000000000d' % 1 }}", "memory"),
        (
            "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}"
            "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
            "memory",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
        ("{{ range(100000000) | list | length }}", "Range too big"),
        ("{% for %}", "Expected an expression"),
        ("{{ unknown_function() }}", "undefined"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "correct or replace it"),
    ],
)
def test_limits_on_time_memory_and_output(template, why):
    with pytest.raises(ModelwrightError, match=why):
        render(template, seconds=2.0)


def test_after_a_timeout_the_next_one_is_rendered():
    slow = "{% if slow %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    slow += "{% endfor %}{% endif %}{{ messages | length }}"
    with ChatTemplate(slow, seconds=0.5) as made:
        assert made.render(MESSAGES) == "2"
        with pytest.raises(ModelwrightError, match=r"longer than 0\.5 seconds"):
            made.render(MESSAGES, slow=True)
        assert made.render(MESSAGES) == "2"


def test_long_messages_go_through_the_pipe():
    with ChatTemplate("{{ messages[0].content }}") as made:
        text = "a\u00e9\U0001f642" * 300_000
        assert made.render([{"role": "user", "content": text}]) == text


def test_templates_of_published_files(tmp_path):
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        json.dumps(
            {
                "chat_template": [
                    {"name": "tool_use", "template": "tools"},
                    {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
                ],
                "bos_token": {"content": "<s>", "lstrip": False},
                "eos_token": None,
            }
        )
    )
    with ChatTemplate.of_file(path) as made:
        assert made.render(MESSAGES) == "<s>hi <b> é🙂"
    path.write_text(json.dumps({"bos_token": "<s>"}))
    with pytest.raises(ModelwrightError, match="holds no chat_template"):
        ChatTemplate.of_file(path)
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}!")
    with ChatTemplate.of_file(path) as made:
        assert made.render([]) == "<s>!"
    path.write_text("[]")
    with pytest.raises(ModelwrightError, match=r"no tokenizer_config\.json"):
        ChatTemplate.of_file(path)
    with pytest.raises(ModelwrightError, match="cannot be read"):
        ChatTemplate.of_file(tmp_path / "absent.json")


def test_threads_that_share_a_template_are_given_their_own_text():
    """A server renders conversations of different clients at once."""
    with ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}") as template:
        said = [f"{number} " * (1 + 2000 * number) for number in range(8)]

        def rendered(text: str) -> str:
            return template.render([{"role": "user", "content": text}])

        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(rendered, said)) == said


def test_a_process_with_many_open_files_can_render():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 1200), hard), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with ChatTemplate("{{ messages[0].content }}") as template:
            assert template.render([{"role": "user", "content": "Who?"}]) == "Who?"
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
