"""Documents to text: Markdown and plain text as they are, HTML as the text that a reader sees.

The text is what offsets count in; headings keep Markdown's marks in it.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Final

from comity.core.retrieval.chunk import first_heading
from comity.errors import DataError

TEXT_SUFFIXES: Final = frozenset({".md", ".markdown", ".txt", ".text"})
HTML_SUFFIXES: Final = frozenset({".html", ".htm"})

_UNSEEN: Final = frozenset({"script", "style", "template", "noscript", "svg", "iframe"})
_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track"}
    | {"wbr", "param"}
)
_OPEN_ENDED: Final = frozenset({"p", "li", "dt", "dd", "td", "th", "tr", "option"})
"""Elements whose end tag may be left out: the next one, or the end of their parent, ends them."""
_HIDDEN_STYLE: Final = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
MAX_TAG: Final = 8_192
"""Characters of a tag; what begins like one and goes on for longer is text."""
_BLOCKS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "figure", "footer"}
    | {"form", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul"}
)
_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_SPACE: Final = re.compile(r"\s+")
_BLANK: Final = re.compile(r"(?<![^\S\n])[^\S\n]*\n(?:[^\S\n]*\n)+[^\S\n]*")


def is_read(name: str) -> bool:
    """Whether a document of this name is of a kind that is read."""
    return PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES | HTML_SUFFIXES


def text_of(name: str, content: bytes, *, max_line_bytes: int) -> tuple[str, str]:
    """The title and text of a document.

    Args:
        name: Its name; the suffix says what it is.
        content: Its bytes.
        max_line_bytes: The longest line.

    Raises:
        DataError: It is no text, Markdown or HTML file, is binary, is not UTF-8, or has a line that
            is too long; names the document and the byte or line.
    """
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if not is_read(name):
        known = ", ".join(sorted(TEXT_SUFFIXES | HTML_SUFFIXES))
        raise DataError(f"{name} is not a kind of document that is read", hint=f"read are {known}")
    text = _decoded(name, content)
    longest = max((len(line) for line in content.split(b"\n")), default=0)
    if longest > max_line_bytes:
        raise DataError(
            f"{name} has a line of {longest} bytes; at most {max_line_bytes} are read",
            hint="break the line, or raise limits.max-line-bytes in the site file",
        )
    title = ""
    if suffix in HTML_SUFFIXES:
        page = _Page()
        page.feed(_bounded(text))
        page.close()
        title, text = page.title, page.text
    return title or first_heading(text) or path.stem.replace("-", " ").replace("_", " "), text


def _decoded(name: str, content: bytes) -> str:
    binary = content.find(b"\0")
    if binary >= 0:
        raise DataError(
            f"{name}, byte {binary}: a zero byte, so this is no text", hint="save it as UTF-8 text"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, byte {error.start}: 0x{content[error.start]:02x} is not UTF-8",
            hint="save the file in UTF-8",
        ) from error


def _bounded(text: str) -> str:
    """HTML in which each ``<`` that the parser would search far for the end of is text.

    The parser looks for the end of a tag again from each ``<``; without this a file of tags that
    never end takes time by the square of its length.
    """
    pieces, start = [], 0
    closing = -1
    comments_end = text.rfind("-->")
    for match in _OPENING.finditer(text):
        at = match.start()
        if at < start:
            continue
        if match[0] == "<!--" and at + 4 <= comments_end:
            pieces.append(text[start:at])
            start = text.index("-->", at + 4) + 3
            continue
        if closing <= at:
            closing = text.find(">", at)
            closing = len(text) + MAX_TAG if closing < 0 else closing
        if match[0] != "<" or closing - at > MAX_TAG:
            pieces.append(text[start:at] + "&lt;")
            start = at + 1
    pieces.append(text[start:])
    return "".join(pieces)


_OPENING: Final = re.compile(r"<!--|<!\[|<")


class _Page(HTMLParser):
    """Collects the text that a reader sees, paragraph by paragraph."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._title: list[str] = []
        self._unseen: list[str] = []
        self._in_title = False

    @property
    def title(self) -> str:
        """What stands in the title element."""
        return _SPACE.sub(" ", "".join(self._title)).strip()

    @property
    def text(self) -> str:
        """The text, one blank line between paragraphs."""
        return _BLANK.sub("\n\n", "".join(self._pieces)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._unseen and tag in _OPEN_ENDED and tag == self._unseen[-1]:
            self._unseen.pop()
        if self._unseen or tag in _UNSEEN or _hidden(attrs):
            if tag not in _VOID and (not self._unseen or tag == self._unseen[-1] or tag in _UNSEEN):
                self._unseen.append(tag)
            return
        self._in_title = tag == "title" and not self._title
        if tag in _HEADINGS:
            self._pieces.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag in _BLOCKS:
            self._pieces.append("\n\n")
        elif tag == "li":
            self._pieces.append("\n- ")
        elif tag in {"br", "td", "th"}:
            self._pieces.append("\n" if tag == "br" else " | ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif self._unseen:
            implied = self._unseen[-1] in _OPEN_ENDED and tag in _BLOCKS
            if implied or tag == self._unseen[-1]:
                self._unseen.pop()
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
        elif not self._unseen:
            self._pieces.append(_SPACE.sub(" ", data))


def _hidden(attrs: list[tuple[str, str | None]]) -> bool:
    return any(
        name == "hidden" or (name == "style" and _HIDDEN_STYLE.search(value or ""))
        for name, value in attrs
    )
