"""One run of three small notebooks, looked at from all sides; a kernel start costs seconds."""

import json
import re
from html import escape
from html.parser import HTMLParser

import nbformat
import pytest

from fusionlab.bench import records
from fusionlab.bench.run import Run, new_folder
from fusionlab.bench.table import Score, stamped
from fusionlab.errors import UserError
from fusionlab.targets import TARGETS
from fusionlab.tools.notebooks import _absolute_folders, located, run_notebooks
from fusionlab.tools.report import write_report

PARAMETERS = ("code", 'profile = "auto"\ndata = "auto"\nseed = 0', "parameters")
# A one-by-one PNG.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://example.org/nb)"
TEXT = r"""# First **notebook**

Schedule $\sigma_{\min} < \sigma$, code `$not math$`, price \$5, next [one](second.ipynb).

$$\mathcal{L} = \frac{1}{2}\lVert x \rVert_2^2$$

```python
y = "$x$"
```
Bad: $\nosuchcommand{x}$ <img src="https://example.org/a.png">
"""
WORK = """
import os, sys
from IPython.display import display
from fusionlab.lab import record, show, table, grid, move, start
import torch
session = start(profile, data, seed)
print("kernel", sys.executable)
print("here", os.getcwd())
print("folders", os.environ["FUSIONLAB_MIRROR"], data)
print("\\x1b[31mred\\x1b[0m <b>")
"""
DRAW = """
show(grid([torch.eye(8)], ["eye"]), "The unit matrix, white diagonal on black", "eye")
table([{"method": "a", "EN": 1.5}], "Made of $x^2$ numbers")
record(session, "metrics/demo", "<row>", "EN", 6.5)
"""
WIDGET = """
def panel(k):
    return grid([torch.eye(8) * k])
move(panel, k=(0.0, 1.0))
"""


@pytest.fixture
def run(tmp_path, write_notebook, monkeypatch):
    """The folder, outcomes and page of a run: one notebook works, one fails, one works again."""
    first = write_notebook(
        "first", ("md", f"{BADGE}\n\n{TEXT}"), PARAMETERS, ("code", WORK), ("code", DRAW), ("code", WIDGET)
    )
    second = write_notebook(
        "second", ("code", "a = 1"), ("code", "assert a > 1, 'too <small>'"), ("code", "b")
    )
    third = write_notebook("third", ("code", "print('still here')"))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONLAB_MIRROR", "mirror")
    # A kernel of the user's by the same name must not be taken.
    rival = tmp_path / "jupyter" / "kernels" / "python3"
    rival.mkdir(parents=True)
    (rival / "kernel.json").write_text(
        json.dumps({"argv": ["/nonexistent/python"], "display_name": "rival", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.delenv("FUSIONLAB_PROFILE", raising=False)
    folder = new_folder(tmp_path / "runs")
    # start() opens the folder, so that it has to hold a pair.
    from PIL import Image

    for kind in ("ir", "vi"):
        (tmp_path / "own" / kind).mkdir()
        Image.new("L", (16, 16), 9).save(tmp_path / "own" / kind / "a.png")
    outcomes = run_notebooks([first, second, third], "smoke", "own", 3, folder, progress=False, limit=120)
    return folder, outcomes, (folder / "index.html").read_text("utf-8")


class Page(HTMLParser):
    """Every reference a browser would fetch, every id, and the alt text of every picture."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.alts, self.links, self.tags = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.fetched += [attributes[k] for k in ("src", "srcset", "poster", "data") if attributes.get(k)]
        self.fetched += [attributes["href"]] if tag == "link" else []
        self.links += [attributes["href"]] if tag == "a" else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.alts += [attributes.get("alt")] if tag == "img" else []


def test_a_run_of_notebooks_and_its_report(run, tmp_path):
    import sys

    folder, outcomes, html = run
    assert [(o.name, o.ok) for o in outcomes] == [("first", True), ("second", False), ("third", True)]
    assert "too <small>" in outcomes[1].error
    assert "\x1b" not in outcomes[1].error

    executed = nbformat.read(folder / "notebooks" / "first.ipynb", as_version=4)
    text = "".join(o.text for c in executed.cells if c.cell_type == "code" for o in c.outputs if "text" in o)
    assert f"kernel {sys.executable}" in text
    assert f"here {tmp_path / 'notebooks'}" in text
    assert f"folders {tmp_path / 'mirror'} {tmp_path / 'own'}" in text
    assert "profile smoke, data own" in text
    assert "seed 3" in text

    kept = records.read(folder)
    assert [(r.row, r.value, r.run.profile, r.seed) for r in kept] == [("<row>", 6.5, "smoke", 3)]
    assert kept[0].run.run == folder.name
    assert kept[0].run.command  # that of `fusionlab run`, not of the kernel
    assert "ipykernel" not in kept[0].run.command
    assert (folder / "figures" / "eye.png").exists()

    page = Page(html)
    assert all(reference.startswith("data:image/") for reference in page.fetched)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\(", html)
    assert page.alts == ["The unit matrix, white diagonal on black"]
    assert len(page.ids) == len(set(page.ids))
    assert {"#first", "#second", "#third"} <= set(page.links)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))

    # What failed comes first, then the contents, the records, the notebooks.
    order = [
        "1 of 3 notebooks failed",
        "too &lt;small&gt;",
        "<h2>Notebooks",
        "<h2>Records",
        '<article id="first"',
    ]
    places = [html.index(piece) for piece in order]
    assert places == sorted(places)
    assert "&lt;row&gt;" in html
    assert "\x1b" not in html
    assert "red &lt;b&gt;" in html
    assert "still here" in html

    # Formulas become MathML, code stays, and what does not convert is said at the end.
    assert html.count("<math") == 3
    assert "$not math$" in html
    assert "<code>\\nosuchcommand{x}</code></li>" in html[html.index("Formulas shown as source") :]
    assert "\\frac" not in html
    assert "widget-view" not in html


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither"):
        write_report(tmp_path)


def test_a_name_stays_a_name_and_a_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tno", "scenes", "mine"):
        (tmp_path / name).mkdir()
    assert [located(data) for data in ("tno", "scenes", "absent")] == ["tno", "scenes", "absent"]
    assert located("mine") == str(tmp_path / "mine")
    assert located("./tno") == str(tmp_path / "tno")


def test_an_unknown_profile_runs_nothing(tmp_path, write_notebook):
    with pytest.raises(UserError, match="reproduce"):
        run_notebooks(
            [write_notebook("a", PARAMETERS)], "paper", "auto", None, tmp_path / "r", progress=False
        )


def test_records_stand_under_the_row_the_paper_prints_with_their_errors(tmp_path):
    class Of:
        data, split, total = "roadscene", "test", 221

        def __len__(self):
            return 50

        def ranges(self):
            return ""

    run = Run.begin(tmp_path, "laptop", command="x")
    for row, error in (("student", 0.0123), ("maximum", None)):
        score = Score("SSIM", 0.5, convention="mmdrfuse", row=row, error=error)
        records.append(tmp_path, stamped("mmdrfuse/table5", score, Of(), run))
    page = write_report(tmp_path).read_text("utf-8")
    rows = re.findall(r"<tr>(.*?)</tr>", page.split("<details>")[0])
    cells = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]
    assert cells == [
        ["row", "SSIM"],
        ["MMDRFuse, as printed", "0.89"],
        ["student", "0.5000 ± 0.01"],
        ["maximum", "0.5000"],
    ]
    assert "data roadscene, split test, n 50 of 221, convention mmdrfuse, profile laptop, seed 0" in page
    reason = TARGETS["mmdrfuse/table5"].differs
    assert reason and escape(reason) in page
    assert all(f"<th>{name}</th>" in page for name in ("commit", "versions", "device", "command", "weights"))


def test_a_mirror_may_be_an_address_and_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONLAB_CACHE", "cache")
    monkeypatch.setenv("FUSIONLAB_MIRROR", "https://mirror.example/data")
    folders = _absolute_folders()
    assert "FUSIONLAB_MIRROR" not in folders  # left to the kernel as it is
    assert folders["FUSIONLAB_CACHE"] == str(tmp_path / "cache")
