"""Wikitext to plain text: what a reader of the page would read, less tables and templates.

One pass over the brackets with a stack, so that the time grows with the length however they are
nested or left open. It is no renderer: templates are dropped but for those that only wrap words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator

_DROPPED = "ref|math|chem|gallery|timeline|score|table|syntaxhighlight|source|code|imagemap|graph"
_TAG = re.compile(rf"<(/?)({_DROPPED})\b([^<>]*)>", re.IGNORECASE)
_COMMENT = re.compile(r"<!--|-->")
_BRACKET = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:*#]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}
_HIDDEN = re.compile(
    r"\s*(?:file|image|category|media|datei|bild|kategorie|fichier|archivo|categor[ií]a|"
    r"文件|檔案|图像|圖像|分类|分類|[a-z]{2,3}(?:-[a-z-]{2,12})?)\s*:",
    re.IGNORECASE,
)
_EXTERNAL = re.compile(
    r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]{1,2000}(?:[ \t]+([^\[\]\n]{0,2000}))?\]", re.IGNORECASE
)
_WRAPPERS = re.compile(
    r"\s*(?:lang|lang-[a-z-]+|nowrap|nobr|transl|small|big|smallcaps)\s*\|", re.I
)
_QUOTES = re.compile(r"'{2,5}")
_BREAK = re.compile(r"<br\b[^<>]*>|</p>|</div>", re.IGNORECASE)
_ANY_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,300}>")
_MARKS = re.compile(r"^[*#:;]+[ \t]*|^-{4,}", re.MULTILINE)
_WORDS = re.compile(r"__[A-Z]{3,20}__")
_SPACES = re.compile(r"[ \t]{2,}")
_EMPTY_BRACKETS = re.compile(r"\([ ;,]{0,20}\)")


def plain_text(markup: str) -> str:
    """The text of a page of wikitext, paragraphs parted by blank lines.

    Headings whose sections hold nothing more (references, for one) are left out.
    """
    text = _without_spans(markup, _COMMENT, lambda m: (m[0] == "-->", "", False))
    text = _without_spans(
        text, _TAG, lambda m: (m[1] == "/", m[2].lower(), m[3].rstrip().endswith("/"))
    )
    text = _unbracketed(text)
    text = _EXTERNAL.sub(r"\1", text)
    text = _BREAK.sub("\n", text)
    text = _WORDS.sub("", _ANY_TAG.sub("", _QUOTES.sub("", text)))
    text = html.unescape(_MARKS.sub("", text)).replace("\u00a0", " ")
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    text = _EMPTY_BRACKETS.sub("", "\n".join(_with_used_headings(lines)))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _with_used_headings(lines: Iterable[str]) -> Iterator[str]:
    """The lines, headings without their marks, and those left out that nothing comes under."""
    waiting: list[tuple[int, str]] = []
    for line in lines:
        if len(line) > 2 and line[0] == line[-1] == "=":
            level = len(line) - len(line.lstrip("="))
            while waiting and waiting[-1][0] >= level:
                waiting.pop()
            waiting.append((level, line.strip("=").strip()))
            continue
        if line:
            yield from (heading for _, heading in waiting)
            waiting.clear()
        yield line


def _without_spans(
    text: str, mark: re.Pattern[str], read: Callable[[re.Match[str]], tuple[bool, str, bool]]
) -> str:
    """``text`` without what stands between an opening mark and its closing one.

    ``read`` says of a match (closes, name, stands alone). An opening mark that is never closed
    takes nothing with it.
    """
    kept: list[str] = []
    opened: tuple[str, int] | None = None
    done = 0
    for match in mark.finditer(text):
        closes, name, alone = read(match)
        if alone:
            if opened is None:
                kept.append(text[done : match.start()])
                done = match.end()
        elif not closes:
            if opened is None or opened[0] == name:
                opened = (name, match.start())
        elif opened is not None and opened[0] == name:
            kept.append(text[done : opened[1]])
            done, opened = match.end(), None
    kept.append(text[done:])
    return "".join(kept)


def _unbracketed(text: str) -> str:
    """Templates and tables dropped, links replaced by what they show."""
    frames: list[tuple[str, list[str]]] = [("", [])]
    done = 0
    for match in _BRACKET.finditer(text):
        mark = match[0].strip(" \t:*#")
        frames[-1][1].append(text[done : match.start()])
        done = match.end()
        if mark not in _CLOSES:
            frames.append((mark, []))
            continue
        wanted = _CLOSES[mark]
        if wanted not in (frame[0] for frame in frames[-8:]):
            continue  # a closing bracket of nothing near
        while frames[-1][0] != wanted:
            inner = frames.pop()
            frames[-1][1].extend(inner[1])
        _, content = frames.pop()
        frames[-1][1].append(_shown(wanted, "".join(content)))
    frames[-1][1].append(text[done:])
    return "".join(piece for _, content in frames for piece in content)


def _shown(mark: str, content: str) -> str:
    if mark == "{{":
        return content.rpartition("|")[2] if _WRAPPERS.match(content) else ""
    if mark == "{|" or _HIDDEN.match(content):
        return ""
    target, bar, shown = content.partition("|")
    if not bar:
        return target.lstrip(":")
    return shown.rpartition("|")[2] or target.partition("(")[0].strip()
