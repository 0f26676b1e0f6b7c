"""The process in which a chat template is rendered: it holds nothing and may reach nothing.

Run as a script. It reads {"template", "tokens", "largest", "memory"} and answers {}; then every
line of JSON, {"messages": ..., ...}, is answered by a line, {"text"} or {"error"}. It imports
only the standard library and jinja2, and gives up the right to open files, to make processes and
to hold more memory than it is told, before it looks at the template.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, NoReturn

import jinja2.debug  # noqa: F401 - loaded where no file can be opened any more
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """``{% generation %}...{% endgeneration %}`` marks what is learned; the text is as without."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the two tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(str(message))


def _json(value: Any, indent: int | None = None) -> str:
    """As text for a model, not escaped for HTML as jinja2's own filter does."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def environment() -> ImmutableSandboxedEnvironment:
    """The one environment of chat templates, with the conventions of published ones."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = _json
    made.globals["raise_exception"] = _refuse
    return made


def confine(memory: int) -> None:
    """Limit this process: bytes of memory; no file beyond those open, no child, no core."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def serve() -> None:
    """Answer until the input ends."""
    setup = json.loads(sys.stdin.readline())
    env = environment()
    # What is loaded when first used is loaded before the doors are shut.
    env.from_string("{% for a in [[1.5, 'é']] %}{{ a|tojson|trim }}{% endfor %}").render()
    confine(setup["memory"])
    _answer({})
    template, problem = None, ""
    for line in sys.stdin:
        if template is None and not problem:
            try:
                template = env.from_string(setup["template"])
            except Exception as error:  # it may raise what it likes: constants are computed here
                problem = _line(error)
        if template is None:
            _answer({"error": problem})
        else:
            _answer(_rendered(template, setup["tokens"] | json.loads(line), setup["largest"]))


def _answer(found: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _rendered(template: Any, given: dict[str, Any], largest: int) -> dict[str, str]:
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(**given):
            size += len(piece)
            if size > largest:
                return {"error": f"gives more than {largest:,} characters"}
            pieces.append(piece)
    except MemoryError:
        pieces.clear()
        return {"error": "uses too much memory"}
    except RecursionError:
        return {"error": "calls itself without end"}
    except Exception as error:  # what a template may raise is not ours to know
        return {"error": _line(error)}
    return {"text": "".join(pieces)}


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


if __name__ == "__main__":
    serve()
