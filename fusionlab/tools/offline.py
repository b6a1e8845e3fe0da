"""Markdown of notebooks as HTML that needs no network: formulas in MathML, pictures inside the page."""

import base64
import mimetypes
import re
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# Tags of raw HTML that fetch something when the page is opened.
FETCHES = re.compile(r"<(audio|embed|iframe|img|link|object|script|source|video)\b", re.IGNORECASE)


def to_html(
    markdown: str,
    folder: Path,
    unconverted: list[str],
    attachments: dict[str, dict[str, str]] | None = None,
) -> str:
    """HTML of a Markdown text; relative pictures are read from `folder`.

    A formula that does not convert is shown as code and added to `unconverted`; a picture that is not at hand
    is replaced by its alt text, raw HTML that would fetch something by its source.
    """
    renderer = _OfflineRenderer(folder, unconverted, attachments or {})
    return str(MarkdownWithMath(renderer=renderer).render(markdown))


def to_mathml(formula: str, display: str) -> str | None:
    """A LaTeX formula as MathML ("inline" or "block"); None where a part is unknown."""
    try:
        mathml = str(convert(formula.strip(), display=display))
    except Exception:  # the converter raises whatever its parser stumbles over
        return None
    # An unknown command comes back as an identifier of that name, backslash included.
    return None if "\\" in mathml else mathml


class _OfflineRenderer(IPythonRenderer):
    def __init__(self, folder: Path, unconverted: list[str], attachments: dict[str, dict[str, str]]) -> None:
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
        url = self._embed_image_or_attachment(url)
        if not url.startswith("data:"):
            path = self.folder / url
            if ":" in url or not path.is_file():
                return f'<span class="picture">{escape(text)}</span>'
            kind = mimetypes.guess_type(path.name)[0]
            url = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return f'<img src="{url}" alt="{escape(text)}">'

    def block_html(self, html: str) -> str:
        return f"<pre>{escape(html)}</pre>\n" if FETCHES.search(html) else str(super().block_html(html))

    def inline_html(self, html: str) -> Any:
        return escape(html) if FETCHES.search(html) else super().inline_html(html)
