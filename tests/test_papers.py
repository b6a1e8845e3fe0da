"""The printed numbers: every cell of every table, checked against the text and against itself."""

import csv
import re
from collections import Counter, defaultdict

import pytest

from fusionlab import paths
from fusionlab.bench.results import verdicts
from fusionlab.errors import UserError
from fusionlab.targets import TARGETS

CELLS = {
    "caf": {"table1": 10 * (8 + 7), "table2": 10 * 18, "table3": 10 * 7},
    "coconet": {
        "table1": 13 * 2 * 6, "table2": 4 * 2 * 6, "table3": 7 * 2 * 6, "table4": 3 * 13,
        "table5": 8 * 12 - 6, "table6": 13 * 8, "table7": 8 * 4, "table8": 13 * 18, "table9": 10 * 4,
    },
    "comofusion": {"table1": 8 * 6, "table2": 8 * 6, "table3": 8 * 2, "table4": 5 * 4},
    "dmfuse": {
        "table1": 8 * 8, "table2": 10 * 14, "table3": 10 * 18, "table4": 6 * 8, "table5": 4 * 11,
        "table6": 3 * 8, "table7": 8 * 4,
    },
    "mmdrfuse": {
        "table1": 12, "table2": 12, "table3": 20, "table4": 21, "table5": 3 * 7 * 6, "table6": 2 * 7 * 6,
    },
}  # fmt: skip
LINES = {
    "caf": 10 + 10 + 10,
    "coconet": 13 + 4 + 7 + 3 + 8 + 13 + 8 + 13 + 10,
    "comofusion": 8 + 8 + 8 + 5,
    "dmfuse": 8 + 10 + 10 + 6 + 4 + 3 + 8,
    "mmdrfuse": 3 + 3 + 4 + 7 + 21 + 14,
}
# Printed with all its datasets on one line, where other tables have a line for each dataset.
ONE_LINE = {
    ("caf", "table1"),
    ("comofusion", "table3"),
    ("dmfuse", "table7"),
    *(("coconet", f"table{number}") for number in (1, 2, 3, 5)),
}
# With a line for each metric or class, and a column for each method.
BY_METRIC = {("coconet", f"table{number}") for number in (4, 7, 9)}
# Other whole numbers in the tables are years and citations; as Ω two noughts of CAF's Table 2 were read.
WITHOUT_A_POINT = {"caf": "|Ω", "dmfuse": "|2946"}
MARKUP = re.compile(r"</?u>|\*\*")
MATHS = re.compile(r"[$_]")  # as in $Ours_H$
DEVIATION = re.compile(r"\s*\\pm\s*[\d.]+")  # a note in our tables


def read(paper: str) -> list[dict[str, str]]:
    with paths.asset(f"papers/{paper}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(paper: str) -> dict[tuple[str, ...], str]:
    return {(row["table"], row["dataset"], row["method"], row["metric"]): row["value"] for row in read(paper)}


@pytest.mark.parametrize("paper", CELLS)
def test_every_cell_is_there_once(paper):
    rows = read(paper)
    assert {row["paper"] for row in rows} == {paper}
    assert Counter(row["table"] for row in rows) == CELLS[paper]
    assert len(values(paper)) == len(rows)


def test_rows_printed_twice_agree():
    """Papers repeat configurations in several tables; a slip of transcription would part them."""
    value = values("mmdrfuse")
    for metric in ("SD", "VIF", "Qabf", "SSIM"):
        assert (
            value["table1", "LLVIP", "III After dynamic refresh", metric]
            == value["table3", "LLVIP", "teacher", metric]
        )
        student = {
            value["table2", "LLVIP", "III with digestible distillation", metric],
            value["table3", "LLVIP", "student3", metric],
            value["table5", "LLVIP", "MMDRFuse", metric],
        }
        assert len(student) == 1
    value = values("comofusion")
    for metric in ("EN", "SD", "Qabf", "SSIM"):
        assert value["table2", "MSRS", "CoMoFusion", metric] == value["table4", "MSRS", "ours", metric]
    value = values("coconet")
    for dataset in ("TNO", "RoadScene"):
        for metric in ("EN", "SD", "VIF", "SF", "AG", "SCD"):
            rows = [value[f"table{number}", dataset, "Ours", metric] for number in (1, 2, 3)]
            # One cell differs in print: .0851 in Table 1, .0831 in Tables 2 and 3.
            assert rows[1] == rows[2] and (rows[0] == rows[1] or (dataset, metric) == ("TNO", "SF")), rows
    for task, ablation, dataset in (("table6", "table7", "M3FD"), ("table8", "table9", "MFNet")):
        full = {key[3]: number for key, number in value.items() if key[0] == task and key[2] == "Ours"}
        ours = {key[3]: number for key, number in value.items() if key[0] == ablation and key[2] == "Ours"}
        named = {"Unlabeled": "Unlabel", "Color Cone": "Cone"}
        for name, number in ours.items():
            name = named.get(name, name)
            assert number == full.get(name, full.get(f"{name} IoU")), (dataset, name)


def test_dmfuse_prints_its_own_row_alike_four_times():
    value = values("dmfuse")
    for metric in ("EN", "SD", "PC", "FMI_pixel", "Qe", "Qabf", "MS_SSIM", "VIF"):
        rows = ("table4", "MS-COCO (Ours)"), ("table5", "1/4(Ours)"), ("table6", "Ours")
        assert len({value[table, "TNO", method, metric] for table, method in rows}) == 1
    for metric, dataset in (("Params", "none"), ("Flops", "none"), ("Time", "TNO")):
        printed = value["table5", "TNO", "1/4(Ours)", metric], value["table7", dataset, "Ours", metric]
        assert float(printed[0]) == pytest.approx(float(printed[1]), rel=5e-4)


def test_columns_of_dmfuse_are_what_they_are_called():
    """Detection: the mean over classes is the column All, the strict AP is lower. FMB: IoU is below Acc."""
    value = values("dmfuse")
    methods = {key[2] for key in value if key[0] == "table2"}
    classes = ("Person", "Car", "Bus", "Lamp", "Motorcycle", "Truck")
    for method in methods:
        for kind in ("mAP50", "mAP50_95"):
            of = [float(value["table2", "M3FD", method, f"{kind} {name}"]) for name in (*classes, "All")]
            assert of[-1] == pytest.approx(sum(of[:-1]) / 6, abs=0.0011)
        for name in (*classes, "All"):
            loose, strict = (
                value["table2", "M3FD", method, f"{kind} {name}"] for kind in ("mAP50", "mAP50_95")
            )
            assert float(strict) < float(loose)
    for (table, dataset, method, metric), printed in value.items():
        if table == "table3" and metric.startswith("Acc "):
            assert float(value[table, dataset, method, metric.replace("Acc", "IoU")]) < float(printed)


@pytest.mark.parametrize("paper", CELLS)
def test_numbers_stand_in_the_paper_in_this_order(paper, shared):
    """Row by row: a line of the paper's text holds the method's name and exactly these numbers."""
    number = re.compile(r"-?\d+\.\d+" + WITHOUT_A_POINT.get(paper, ""))
    printed = []
    for line in (shared / "papers" / f"{paper}.txt").read_text().splitlines():
        plain = MATHS.sub(" ", DEVIATION.sub("", MARKUP.sub("", line))).replace(" ₂", "2").replace(" ³ ", "3")
        plain = re.sub(r"U\s*[2₂]\s+Fusion", "U2Fusion", plain)
        cells = [cell.strip() for cell in plain.split("\t")]
        names = {cell.split()[0] for cell in cells if cell and not number.fullmatch(cell)}
        printed.append((names, [found.replace("Ω", "0") for found in number.findall(plain)]))
    wanted = defaultdict(list)
    for row in read(paper):
        dataset = "" if (paper, row["table"]) in ONE_LINE else row["dataset"]
        first = row["metric"] if (paper, row["table"]) in BY_METRIC else row["method"]
        wanted[row["table"], dataset, first].append(row["value"])
    assert len(wanted) == LINES[paper]
    for (table, _, method), numbers in wanted.items():
        found = any(method.split()[0] in names and numbers == line for names, line in printed)
        assert found, f"{table}: {method} {numbers}"


def test_the_means_of_cafs_tables_and_its_rows_printed_twice():
    """What the notes of its table say of slips, recomputed; all other means and repetitions are right."""
    value = {key: float(number) for key, number in values("caf").items()}
    notes = {(r["table"], r["dataset"], r["method"], r["metric"]): r["note"] for r in read("caf")}
    rows = {key[:3] for key in value}
    for row in rows:
        classes = [
            number for key, number in value.items() if key[:3] == row and key[3].endswith((" AP", " IoU"))
        ]
        if row[0] == "table1":
            mean = value[*row, "mAP@.5:.95"]
            right = abs(sum(classes) / len(classes) - mean) <= 0.0501  # rounded, of rounded numbers
            assert right == ("mean of its classes" not in notes[*row, "mAP@.5:.95"]), row
            if not right:
                assert f"{sum(classes) / len(classes):.1f}" in notes[*row, "mAP@.5:.95"]
        if row[0] == "table2":
            hidden = 9 * value[*row, "mIoU"] - sum(classes)  # of the ninth class, were it among nine
            assert 13 < hidden < 25 and len(classes) == 8, row
            assert sum(classes) / 8 > value[*row, "mIoU"] + 2  # so it is no mean of the eight
    homes = {
        "People AP": "M3FD",
        "Car AP": "M3FD",
        "Person IoU": "MFNet",
        "Car IoU": "MFNet",
        "mIoU": "MFNet",
    }
    differing = set()
    for (table, _, method, metric), number in values("caf").items():
        if table == "table3" and metric in homes and not method.endswith((" P", " H", " R", " a")):
            first = "table1" if homes[metric] == "M3FD" else "table2"
            other = values("caf")[first, homes[metric], method, metric]
            told = f"{other} in Table {first[-1]}" in notes[table, "M3FD & MFNet", method, metric]
            assert told == (other != number), (method, metric)
            differing |= {(method, metric)} if told else set()
    assert len(differing) == 9 and not any(method == "Ours" for method, _ in differing)
    lower = {key[2:] for key, note in notes.items() if "lower than without the search" in note}
    fallen = {
        (f"{method} P", metric)
        for method in ("UMFusion", "ReCoNet", "U2Fusion")
        for metric in ("MI", "VIF", *homes)
        if value["table3", "M3FD & MFNet", f"{method} P", metric]
        < value["table3", "M3FD & MFNet", method, metric]
    }
    assert lower == fallen == {("UMFusion P", "MI"), ("ReCoNet P", "VIF")}


def test_decoded_rows_return_the_printed_ones_and_others_miss():
    """The proven case: values computed on other methods' images, beside what CoMoFusion prints for them."""
    printed = values("comofusion")
    fitting = Counter()
    for row in read("decoded"):
        wanted = printed[row["table"], row["dataset"], row["method"], row["metric"]]
        # Half a unit of the last printed digit, and half a unit of our own last one.
        slack = 0.5 * 10.0 ** -max(3, digits(wanted)) + 0.5 * 10.0 ** -digits(row["value"])
        fits = abs(float(row["value"]) - float(wanted)) <= slack + 1e-12
        assert fits == (row["fits"] == "yes"), row
        fitting[row["table"], row["dataset"], row["method"]] += fits
    assert set(fitting.values()) == {6}


def digits(number: str) -> int:
    return len(number.partition(".")[2])


def test_decoded_values_stand_in_the_measured_facts(shared):
    facts = "".join(
        (shared / "facts" / f"{name}.md").read_text() for name in ("metrics", "comofusion", "coconet")
    )
    for row in read("decoded"):
        number = row["value"].removeprefix("0")
        assert re.search(rf"(?<!\d)0?{re.escape(number)}(?!\d)", facts), row


ITEMS = {"caf": (7, 3), "comofusion": (6, 4), "dmfuse": (11, 7), "mmdrfuse": (5, 6)}  # figures and tables


@pytest.mark.parametrize("paper", ITEMS)
def test_every_figure_and_table_has_one_verdict_and_says_where_it_is(paper):
    figures, tables = ITEMS[paper]
    found = verdicts(paper)
    assert [row["item"] for row in found] == [
        *(f"figure{n}" for n in range(1, figures + 1)), *(f"table{n}" for n in range(1, tables + 1))
    ]  # fmt: skip
    assert {row["verdict"] for row in found} <= {
        "reproduced", "same order", "contradicts", "in kind", "out of reach"
    }  # fmt: skip
    for row in found:
        assert len(row["reason"]) > 20
        kind, _, number = row["where"].partition(" ")
        notebooks = list((paths.asset("papers").parents[1] / "notebooks").glob(f"{number}_*.ipynb"))
        assert row["where"] in TARGETS or (kind == "notebook" and len(notebooks) == 1), row
    with pytest.raises(UserError, match="there is one on caf, comofusion, dmfuse, mmdrfuse"):
        verdicts("nobody")
