"""Markdown of notebooks as HTML that needs no network and runs nothing: formulas in MathML, pictures inside.

A notebook is not trusted: whatever is not on the lists below is shown as text.
"""

import base64
import binascii
import re
from html import escape, unescape
from pathlib import Path

from bleach.sanitizer import Cleaner
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

HTML = """
a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p
pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var
"""
MATHML = """
math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace
msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none
"""
# What MathML elements may say of their looks; no style, and no href, which the converter takes from \href.
LOOKS = """
accent accentunder bevelled close columnalign columnlines columnspacing depth display displaystyle fence
form frame height largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize minsize
movablelimits notation open rowlines rowspacing rspace scriptlevel separator stretchy symmetric voffset
width xmlns
"""
ATTRIBUTES = {
    **dict.fromkeys(MATHML.split(), LOOKS.split()),
    "*": ["class", "title"],
    "a": ["href"],
    "details": ["open"],
    "img": ["alt"],
    "ol": ["start"],
    **dict.fromkeys(("td", "th"), ["colspan", "rowspan"]),
}
LARGEST = 20_000_000  # bytes of a picture that is read
# How the files of each kind begin. SVG is left out: it is a document, and may hold scripts.
KINDS = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpeg": rb"\xff\xd8\xff",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF....WEBP",
}


def to_html(
    markdown: str,
    folder: Path | None,
    unconverted: list[str],
    attachments: dict[str, dict[str, str]] | None = None,
) -> str:
    """HTML of a Markdown text; pictures are read from `folder` and its subfolders, if it is given.

    A formula that does not convert is shown as code and added to `unconverted`; a picture that is not at hand
    is replaced by its alt text, raw HTML that would run or fetch something by its source, as is all that no
    parser gets through.
    """
    renderer = _OfflineRenderer(folder, unconverted, attachments or {})
    try:
        return _sanitised(str(MarkdownWithMath(renderer=renderer).render(markdown)))
    except Exception:  # parsers raise whatever a hostile text makes them stumble over, such as RecursionError
        return f"<pre>{escape(markdown)}</pre>"


def _sanitised(html: str) -> str:
    """HTML in which nothing runs or fetches: tags that are not listed are text, attributes are left out."""
    return str(CLEANER.clean(html))


def picture(data: str, text: str) -> str:
    """An image element of base64 data, or the alt text where it holds no image, whatever it claims to be."""
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):  # the latter for what is not ASCII
        content = b""
    kind = next((kind for kind, start in KINDS.items() if re.match(start, content, re.DOTALL)), None)
    if kind is None:
        return f'<span class="picture">{escape(text)}</span>'
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return f'<img src="{source}" alt="{escape(text)}">'


def to_mathml(formula: str, display: str) -> str | None:
    """A LaTeX formula as MathML ("inline" or "block"); None where a part is unknown."""
    try:
        mathml = str(convert(formula.strip(), display=display))
    except Exception:  # the converter raises whatever its parser stumbles over
        return None
    # An unknown command comes back as an identifier of that name, backslash included.
    return None if "\\" in mathml else mathml


class _OfflineRenderer(IPythonRenderer):
    def __init__(
        self, folder: Path | None, unconverted: list[str], attachments: dict[str, dict[str, str]]
    ) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, attachments=attachments)
        self.folder = folder
        self.unconverted = unconverted

    def inline_math(self, body: str) -> str:
        return self._formula(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<div class="formula">{self._formula(body, "block")}</div>\n'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _formula(self, body: str, display: str) -> str:
        mathml = to_mathml(body, display)
        if mathml is None:
            self.unconverted.append(body.strip())
            return f'<code class="unconverted">{escape(body.strip())}</code>'
        return mathml

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return picture(self._content(url), text)

    def _content(self, url: str) -> str:
        """A picture's bytes in base64; nothing where it is neither attached nor a file below the folder."""
        if url.startswith("attachment:"):
            forms = self.attachments.get(url.removeprefix("attachment:"), {})
            return str(next(iter(forms.values()), ""))
        if url.startswith("data:image/"):
            return url.partition(";base64,")[2]
        if self.folder is None or ":" in url:
            return ""
        folder = self.folder.resolve()
        try:
            path = (folder / url).resolve()
            inside = path.is_relative_to(folder) and path.is_file() and path.stat().st_size < LARGEST
            return base64.b64encode(path.read_bytes()).decode() if inside else ""
        except (OSError, ValueError):  # such as a name too long, or with a zero byte
            return ""

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        """Aligned by a class: the page allows no styles but its own."""
        tag, kind = "th" if head else "td", f' class="{align}"' if align else ""
        return f"  <{tag}{kind}>{text}</{tag}>\n"

    def block_html(self, html: str) -> str:
        return str(super().block_html(_imageless(html)))

    def inline_html(self, html: str) -> str:
        return str(super().inline_html(_imageless(html)))


def _imageless(html: str) -> str:
    """Raw HTML whose pictures are shown as source: those of the page are made by `picture` alone."""
    return re.sub(r"<(?=/?img\b)", "&lt;", html, flags=re.IGNORECASE)


def _allowed(tag: str, name: str, value: str) -> bool:
    """Whether an element may have an attribute."""
    if name == "src":  # written by `picture`
        return tag == "img" and re.fullmatch(r"data:image/[a-z]+;base64,[\w+/=]*", value) is not None
    if name == "href":
        known = re.match("https?://|mailto:|#", value) is not None or ":" not in unescape(value)
        return tag == "a" and known
    return name in ATTRIBUTES.get(tag, ()) or name in ATTRIBUTES["*"]


CLEANER = Cleaner(
    tags={*HTML.split(), *MATHML.split()},
    attributes=_allowed,
    protocols={"http", "https", "mailto", "data"},
    strip=False,
)
