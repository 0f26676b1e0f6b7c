"""The standard library of the Python that runs this, as rows."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter

import pytest

from modelwright.data.sources import read_rows
from modelwright.data.stdlib import group_of, signature, stdlib_rows
from modelwright.errors import ModelwrightError

# Some systems put IDLE, Tk and the turtle, a fifth of all objects, into packages of their own.
WHOLE = all(importlib.util.find_spec(name) for name in ("idlelib", "tkinter", "turtledemo"))


@pytest.fixture(scope="module")
def rows():
    return list(read_rows("python-stdlib"))


@pytest.fixture(scope="module")
def objects(rows):
    return {row["full_name"]: row for row in reversed(rows) if row["kind"] == "object"}


def test_how_much_there_is(rows):
    counts = Counter(row["kind"] for row in rows)
    assert counts["object"] > (7000 if WHOLE else 6500)
    assert counts["source"] > 500
    assert counts["topic"] > 60
    assert sum(len(row["text"]) for row in rows if row["kind"] == "source") > 9_000_000
    assert len({row["id"] for row in rows}) == len(rows)
    kinds = Counter(row["object_kind"] for row in rows if row["kind"] == "object")
    assert min(kinds[k] for k in ("function", "method", "class", "module")) > 300


def test_os_path_join_is_known_as_users_know_it(objects):
    row = objects["os.path.join"]
    assert row["signature"] == "join(a, *p)"
    assert row["docstring"].startswith("Join two or more pathname components")
    assert row["object_kind"] == "function" and row["public"]
    assert row["group"] == "os" and row["module"] == "posixpath"
    assert row["text"].startswith("os.path.join(a, *p)\n\nJoin two or more")
    assert row["source"].startswith("def join(a, *p):\n") and "Join two" not in row["source"]
    assert row["docstring"] == sys.modules["posixpath"].join.__doc__.replace("    ", "").strip()


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("asyncio.gather", "gather(*coros_or_futures, return_exceptions=False)"),
        ("collections.abc.Mapping", "Mapping"),
        ("concurrent.futures.Future.result", "result(timeout=None)"),
        ("decimal.Decimal.sqrt", "sqrt(context=None)"),
        ("textwrap.dedent", "dedent(text)"),
        ("unittest.TestCase.assertEqual", "assertEqual(first, second, msg=None)"),
        ("urllib.parse.urljoin", "urljoin(base, url, allow_fragments=True)"),
    ],
)
def test_objects_are_named_by_where_users_find_them(objects, name, called):
    assert objects[name]["signature"] == called
    assert objects[name]["public"]


def test_no_tests_and_nothing_of_this_machine(rows):
    for row in rows:
        parts = set(row["module"].split("."))
        assert not parts & {"test", "tests", "idle_test", "site-packages", "lib2to3"}
        assert "_sysconfigdata" not in row["id"]


def test_definitions_are_python_without_their_docstring(rows):
    parsed = 0
    for row in rows:
        if row["kind"] != "object" or not row["source"]:
            continue
        (node,) = ast.parse(row["source"]).body
        assert row["docstring"] not in (ast.get_docstring(node) or "")
        parsed += 1
    assert parsed > (7000 if WHOLE else 6200)


def test_private_objects_are_marked(objects):
    assert objects["collections.OrderedDict.__eq__"]["public"]
    assert not objects["inspect._signature_fromstr"]["public"]
    assert sum(row["public"] for row in objects.values()) > 5000


def test_twins_share_a_group(rows):
    assert {group_of(m) for m in ("os", "posixpath", "ntpath", "genericpath")} == {"os"}
    assert group_of("_pydecimal") == "decimal" and group_of("_pyio") == "io"
    assert group_of("_pydatetime") == "datetime" and group_of("_compat_pickle") == "pickle"
    assert group_of("xml.dom.minidom") == "xml" and group_of("json") == "json"
    assert all(row["group"] == group_of(row["module"]) for row in rows)


def test_topics(rows):
    topics = {row["id"]: row["text"] for row in rows if row["kind"] == "topic"}
    assert "assert_stmt" in topics["topic:assert"]


MODULE = '''
class A:
    """Doc of A."""
    def __init__(self, x, /, y: int = 1, *, z=(2, 3)): pass
    def only_doc(self):
        """All there is."""
    def one_line(self, a): "Short."; return a
    @staticmethod
    def free(b="ü"):
        """
        Two
          lines.
        """
        # a remark
        return b
    @classmethod
    def made(cls, n): "Made."
    @property
    def size(self):
        """Its size."""
        return 1
    @size.setter
    def size(self, value):
        """Set its size."""
    def outer(self=None):
        """Outer."""
        def inner(): "Not reachable."
def undocumented(): pass
if True:
    async def branch(*args, **kw):
        """In a branch."""
'''


def test_every_way_to_write_a_docstring(tmp_path):
    (tmp_path / "m.py").write_text(MODULE, encoding="utf-8")
    found = {row["id"]: row for row in stdlib_rows(tmp_path) if row["kind"] == "object"}
    calls = {row["qualname"]: row["signature"] for row in found.values()}
    assert calls == {
        "A": "A(x, /, y: int=1, *, z=(2, 3))",
        "A.only_doc": "only_doc()",
        "A.one_line": "one_line(a)",
        "A.free": "free(b='ü')",
        "A.made": "made(n)",
        "A.size": "size",
        "A.outer": "outer()",
        "branch": "branch(*args, **kw)",
    }
    assert found["object:m:A.only_doc"]["source"] == "def only_doc(self):\n    ...\n"
    assert found["object:m:A.one_line"]["source"] == "def one_line(self, a): ...; return a\n"
    assert found["object:m:A.free"]["docstring"] == "Two\n  lines."
    assert found["object:m:A.free"]["source"] == (
        '@staticmethod\ndef free(b="ü"):\n    # a remark\n    return b\n'
    )
    assert found["object:m:A.size#2"]["docstring"] == "Set its size."
    assert found["object:m:branch"]["object_kind"] == "function"


def test_exports_follow_the_syntax(tmp_path):
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("from .a import *\nfrom .b import g as g, h as other\n")
    (package / "a.py").write_text(
        '__all__ = ["f"]\n__all__ += ["k"]\ndef f(): "F."\ndef k(): "K."\n'
    )
    (package / "b.py").write_text('def g(): "G."\ndef h(): "H."\n')
    names = {row["full_name"] for row in stdlib_rows(tmp_path) if row["kind"] == "object"}
    assert names == {"p.f", "p.k", "p.g", "p.b.h"}


def test_a_python_without_sources(tmp_path):
    (tmp_path / "os.pyc").touch()
    with pytest.raises(ModelwrightError, match=r"no \.py files here"):
        stdlib_rows(tmp_path)


def test_a_file_that_cannot_be_decoded(tmp_path):
    (tmp_path / "m.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ModelwrightError, match=r"m\.py: cannot be decoded"):
        stdlib_rows(tmp_path)


def test_a_file_that_cannot_be_parsed_is_still_a_source(tmp_path):
    (tmp_path / "m.py").write_text("print 'old'\n")
    (row,) = stdlib_rows(tmp_path)
    assert row["id"] == "source:m.py" and row["text"] == "print 'old'\n"


def test_signature_of_a_method_with_fewer_arguments_than_defaults():
    node = ast.parse("def f(self=1): 'D.'").body[0]
    assert signature(node, "method") == "f()"
    assert signature(node, "function") == "f(self=1)"
