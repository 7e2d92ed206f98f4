"""HTML as a reader sees it, in time that grows with the file."""

from __future__ import annotations

import time

import pytest

from comity.services.markup import text_of

PATTERNS = [
    "<a \n",
    "<a x='\n",
    '<a x="\n>',
    "<!--",
    "<!-- >",
    "<![",
    "<![CDATA[ >",
    "<?",
    "</",
    "<!",
]
PATTERNS += [
    "<b\n> </b\n>",
    "&#",
    "&amp",
    "<div>",
    "<script></",
    "<script>",
    "<p hidden>",
    "<!-- -->",
]


def text(html: str) -> str:
    return text_of("a.html", html.encode(), max_line_bytes=2**30)[1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_time_grows_with_the_file_not_with_its_square(pattern: str) -> None:
    started = time.process_time()
    text(pattern * 40_000)
    assert time.process_time() - started < 8


@pytest.mark.parametrize(
    ("html", "seen"),
    [
        ("<object data=x>fallback<p>after", "fallback\n\nafter"),
        ("<p hidden>no</p><p>yes</p>", "yes"),
        ("<p hidden>no<p>yes", "yes"),
        ('<div style="color:red; DISPLAY : none">no<div>no</div>no</div>yes', "yes"),
        ('<span style="visibility:hidden">no</span>yes', "yes"),
        ("<ul><li hidden>no</ul>yes", "yes"),
        ("<input hidden>yes", "yes"),
        ("<svg><title>no</title><g>no</g></svg>yes", "yes"),
        ("a<!-- no > no -->b", "ab"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<script>if (a < b) { no() }</script>yes", "yes"),
        ("before<![endif]>after", "before<![endif]>after"),
    ],
)
def test_the_text_is_what_a_reader_sees(html: str, seen: str) -> None:
    assert text(html) == seen


def test_a_picture_s_title_is_not_the_document_s() -> None:
    html = b"<svg><title>Icon</title></svg><title>Pumps</title><p>x<title>No</title>"
    assert text_of("a.html", html, max_line_bytes=2**20)[0] == "Pumps"
