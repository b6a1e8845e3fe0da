"""One page for a run: what failed, records beside printed rows, and every notebook; needs no network."""

import base64
import csv
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.files import write_bytes
from fusionlab.paths import asset, open_regular
from fusionlab.targets import TARGETS
from fusionlab.tools.offline import picture, to_html

COLUMNS = (*records.FIELDS[2:], *records.STAMP_FIELDS)  # after the run and the target


def write_report(run: Path) -> Path:
    """Writes `<run>/index.html` from the run's `run.json`, `records.csv` and `notebooks/`; returns its path.

    Each of the three may be absent, as in a run of `fusionlab reproduce`. Raises UserError where all are, and
    for a run.json that `fusionlab run` did not write. What notebooks, folders and records are called or hold
    is not trusted.
    """
    run = Path(run)
    settings = _settings(run / "run.json")
    rows = records.read(run) if (run / "records.csv").exists() else []
    if not settings and not rows:
        raise UserError(f"{run} holds neither run.json nor records.csv; name a folder under runs")
    outcomes = settings.get("outcomes", [])
    unconverted: list[str] = []
    notebooks = [_notebook(run, outcome["name"], unconverted) for outcome in outcomes]
    body = [
        f"<h1>fusionlab, run {escape(run.name)}</h1>",
        f"<p>{escape(settings['made'])}</p>" if "made" in settings else "",
        _failures(outcomes),
        _contents(outcomes, settings),
        _records(rows),
        *notebooks,
        _unconverted(unconverted),
    ]
    path = run / "index.html"
    page = _page(f"fusionlab run {run.name}", "\n".join(filter(None, body)))
    write_bytes(path, page.encode("utf-8", "backslashreplace"))
    return path


def _settings(file: Path) -> dict[str, Any]:
    """What `run_notebooks` left of a run; empty without the file, UserError for another one of the name."""
    if not file.exists():
        return {}
    kinds: dict[str, Any] = {"name": str, "ok": bool, "seconds": (int, float), "error": str}
    try:
        with open_regular(file) as stream:
            found = json.load(stream)
        texts = [found[name] for name in ("profile", "data", "made")]
        sound = all(isinstance(text, str) for text in texts) and isinstance(found["outcomes"], list)
        for outcome in found["outcomes"]:
            sound = sound and all(isinstance(outcome[name], kind) for name, kind in kinds.items())
            sound = sound and re.fullmatch(r"[^/\\\0]+", outcome["name"]) is not None
        if not sound:
            raise ValueError("a value of another kind")
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise UserError(f"{file} is none that fusionlab run wrote ({fault!r}); remove it") from fault
    return dict(found)


def _page(title: str, body: str) -> str:
    css = "\n" + Path(__file__).with_name("report.css").read_text("utf-8")
    # Nothing runs and nothing is fetched, even where something slipped through: a second lock.
    style = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _failures(outcomes: Sequence[dict[str, Any]]) -> str:
    failed = [outcome for outcome in outcomes if not outcome["ok"]]
    parts = [f"<h2>{len(failed)} of {len(outcomes)} notebooks failed</h2>"] if failed else []
    parts += [f"<h3>{_link(o['name'])}</h3>\n<pre class='error'>{escape(o['error'])}</pre>" for o in failed]
    return "\n".join(parts)


def _contents(outcomes: Sequence[dict[str, Any]], settings: dict[str, Any]) -> str:
    if not outcomes:
        return ""
    # A folder is named without its path: the page may be passed on.
    data = Path(settings["data"]).name
    lines = [
        [
            _link(outcome["name"]),
            '<span class="ok">ran</span>' if outcome["ok"] else '<span class="failed">failed</span>',
            f"{outcome['seconds']:.1f}",
            escape(settings["profile"]),
            escape(data),
        ]
        for outcome in outcomes
    ]
    return "<h2>Notebooks</h2>\n" + _table(("notebook", "status", "seconds", "profile", "data"), lines)


def _records(rows: Sequence[records.Record]) -> str:
    parts = ["<h2>Records</h2>"] if rows else []
    by_target = sorted(rows, key=lambda record: record.target)
    for target, group in itertools.groupby(by_target, key=lambda record: record.target):
        same_target = list(group)
        parts.append(f"<h3>{escape(target)}</h3>")
        parts += [_comparison(target, measured) for measured in _comparable(same_target)]
        reason = TARGETS[target].differs if target in TARGETS else ""
        if reason and any(_printed(target, record.data) for record in same_target):
            parts.append(f"<p>Why printed and measured rows differ: {escape(reason)}</p>")
        lines = [[escape(_cell(cell)) for cell in _cells(record)] for record in same_target]
        parts.append(f"<details><summary>Every field</summary>\n{_table(COLUMNS, lines)}</details>")
    return "\n".join(parts)


def _cells(record: records.Record) -> list[Any]:
    """The values of COLUMNS."""
    own = [getattr(record, name) for name in records.FIELDS[2:]]
    return [*own, *(getattr(record.run, name) for name in records.STAMP_FIELDS)]


SETTING = ("data", "split", "n", "convention", "profile", "seed")


def _setting(record: records.Record) -> tuple[str, ...]:
    return tuple(str(record.run.profile if name == "profile" else getattr(record, name)) for name in SETTING)


def _comparable(rows: Sequence[records.Record]) -> list[list[records.Record]]:
    """The records that may stand in one table: equal in data, convention, profile and seed."""
    groups: dict[tuple[str, ...], list[records.Record]] = {}
    for record in rows:
        groups.setdefault(_setting(record), []).append(record)
    return list(groups.values())


def _comparison(target: str, rows: Sequence[records.Record]) -> str:
    """Rows as measured, under the row that the paper prints for this data where it prints one."""
    metrics = list(dict.fromkeys(record.metric for record in rows))
    table: dict[str, dict[str, str]] = {}
    for record in rows:
        error = "" if record.error is None else f" ± {record.error:.1g}"
        table.setdefault(record.row, {})[record.metric] = f"{record.value:#.4g}{error}"
    table = {f"{method}, as printed": row for method, row in _printed(target, rows[0].data).items()} | table
    lines = [[escape(name), *(row.get(metric, "") for metric in metrics)] for name, row in table.items()]
    values = zip(SETTING, _setting(rows[0]), strict=True)
    setting = ", ".join(f"{name} {value or 'none'}" for name, value in values)
    return f"<p>{escape(setting)}</p>\n{_table(('row', *metrics), lines)}"


def _printed(target: str, data: str) -> dict[str, dict[str, str]]:
    """The paper's own row for this data, as printed; none for data it does not report."""
    paper, _, table = target.partition("/")
    file = asset("papers") / f"{paper}.csv"
    rows: dict[str, dict[str, str]] = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as lines:
            for cell in csv.DictReader(lines):
                own = cell["method"].lower() == paper and cell["dataset"].lower() == data.lower()
                if cell["table"] == table and own:
                    rows.setdefault(cell["method"], {})[cell["metric"]] = cell["value"]
    return rows


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _link(name: str) -> str:
    return f'<a href="#{escape(name)}">{escape(name)}</a>'


def _unconverted(formulas: Sequence[str]) -> str:
    if not formulas:
        return ""
    items = "".join(f"<li><code>{escape(formula)}</code></li>" for formula in formulas)
    return f"<h2>Formulas shown as source</h2>\n<p>No MathML could be made of these:</p>\n<ul>{items}</ul>"


def _notebook(run: Path, name: str, unconverted: list[str]) -> str:
    import nbformat

    path = run / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        return f'<article id="{escape(name)}">\n<p>{escape(name)} was not executed.</p>\n</article>'
    try:
        with open_regular(path) as stream:
            notebook = nbformat.reads(stream.read().decode(), as_version=4)
    except Exception as fault:  # JSON, the format and its validation each have errors of their own
        reason = f"{escape(name)} cannot be read ({escape(str(fault) or type(fault).__name__)})."
        return f'<article id="{escape(name)}">\n<p>{reason}</p>\n</article>'
    folder = _origin(notebook, path.name)
    cells = [
        _code(cell, folder, unconverted)
        if cell.cell_type == "code"
        else to_html(cell.source, folder, unconverted, cell.get("attachments"))
        for cell in notebook.cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    # Links between notebooks lead to their place on this page; other files of the course are not in the run.
    html = re.sub(r'href="(?:\./)?([\w-]+)\.ipynb"', r'href="#\1"', "\n".join(cells))
    html = re.sub(r'<a href="(?:\./)?[\w-]+\.md">(.*?)</a>', r"\1", html)
    return f'<article id="{escape(name)}">\n{html}\n</article>'


def _origin(notebook: Any, name: str) -> Path | None:
    """The folder that an executed notebook says it came from, if it lies there: the place of its pictures."""
    source = _part(notebook.metadata, "papermill").get("input_path")
    folder = Path(source).parent if isinstance(source, str) else None
    return folder if folder and (folder / name).is_file() else None


def _part(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping within a mapping of someone else; empty where it is none."""
    part = mapping.get(name)
    return part if isinstance(part, Mapping) else {}


def _code(cell: Any, folder: Path | None, unconverted: list[str]) -> str:
    from nbconvert.filters import Highlight2HTML

    outputs = "\n".join(_output(output, folder, unconverted) for output in cell.outputs)
    return f'<div class="code">{Highlight2HTML()(cell.source)}</div>\n{outputs}'


def _output(output: Any, folder: Path | None, unconverted: list[str]) -> str:
    from nbconvert.filters import strip_ansi

    if output.output_type == "stream":
        return f'<pre class="{escape(output.name)}">{escape(_overwritten(strip_ansi(output.text)))}</pre>'
    if output.output_type == "error":
        return f'<pre class="error">{escape(strip_ansi(chr(10).join(output.traceback)))}</pre>'
    data = output.data
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            alt = _part(output.metadata, kind).get("alt", "figure without a description")
            return f"<p>{picture(_text(data[kind]), str(alt))}</p>"
    if "text/markdown" in data:
        return f'<div class="wide">{to_html(_text(data["text/markdown"]), folder, unconverted)}</div>'
    return f"<pre>{escape(strip_ansi(_text(data.get('text/plain', ''))))}</pre>"


def _text(value: Any) -> str:
    """A text that a notebook may store as a list of lines; nbformat joins them where it expects a text."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def _overwritten(text: str) -> str:
    """What a terminal would still show of lines that were written over, such as progress bars."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
