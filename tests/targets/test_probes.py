"""Probes: the trainings they read, their controls, and answers that are known."""

import pytest
import torch

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs, read_image
from fusionlab.fuser import load
from fusionlab.targets import probes


def test_the_probe_reads_the_trainings_of_table4_and_what_needs_none(shared, tmp_path):
    targets.reproduce("comofusion/table4", tmp_path, "ours", profile="smoke")
    (kept,) = tmp_path.glob("checkpoints/*/tuned-0.safetensors")
    before = kept.stat().st_mtime_ns
    made = targets.reproduce("comofusion/probe", tmp_path, profile="smoke")
    assert kept.stat().st_mtime_ns == before  # stage 1 is that of Table 4
    assert records.lint(made) == []
    found = {(record.row, record.metric): record.value for record in made}
    assert len(found) == len(probes.TABLES["comofusion/probe"].rows) * 4
    assert all(0.2 < value < 0.9 for value in found.values())
    assert {r.weights for r in made if r.row == "shipped"} == {load("comofusion").sha256}
    again = targets.reproduce("comofusion/probe", tmp_path / "again", "patches", profile="smoke")
    assert [record.value for record in again] == [r.value for r in made if r.row == "patches"]


def test_a_street_is_read_off_by_place_and_row(shared, tmp_path):
    made = targets.reproduce("dmfuse/probe", tmp_path, profile="smoke")
    assert records.lint(made) == []
    places = {
        "pixels": 1, "pixels, five scales": 1, "random U-Net": 10, "autoencoder": 10,
        "CoMoFusion": 4, "DMFuse": 40,
    }  # fmt: skip
    for question in ("mIoU", "salient IoU"):
        found = [r for r in made if r.metric.split(", ")[0] == question]
        assert {row: sum(r.row == row for r in found) for row in places} == places
        assert all(0 <= r.value <= 1 for r in found)
    assert {r.weights for r in made if r.row == "DMFuse"} == {load("dmfuse").sha256}
    again = targets.reproduce("dmfuse/probe", tmp_path / "again", "CoMoFusion", profile="smoke")
    assert [r.value for r in again] == [r.value for r in made if r.row == "CoMoFusion"]


def test_a_street_is_known_to_whoever_is_told_it(monkeypatch):
    """Maps that hold the answer give 1, maps that hold nothing the share of the commonest answer."""
    run = Run.begin(None, "smoke", 0, "cpu", "test")
    pairs = list(open_pairs("scenes", 2, seed=3))
    answers = {pair.ir.sum().item(): pair.truth for pair in pairs}

    def told(images, _):
        truth = answers[images[0].sum().item()]
        labels = [(truth.labels == k).float() for k in sorted(probes.LABELS)]
        return {"": [torch.stack([*labels, truth.saliency.float()])[None]], ", nothing": [0 * images[0]]}

    x, known = probes.read_street(told, pairs, run, 0)
    for question, labels in known.items():
        share = labels.bincount().max() / len(labels) / len(labels.unique())
        for place, wanted in (("", 1.0), (", nothing", share.item())):
            line = probes.fit_probe(x[place], labels, int(labels.max()) + 1, decay=1e-5, balanced=False)
            value = probes.mean_iou(line(x[place]), labels)
            assert value == pytest.approx(wanted, abs=0.02), (question, place)


def test_figure11_shows_three_encoders_at_five_levels(shared, tmp_path):
    made = targets.reproduce("dmfuse/figure11", tmp_path, profile="smoke")
    assert records.lint(made) == [] and len(made) == 3 * 5 * 2
    assert [w == "none" for w in (r.weights for r in made)] == [r.row != "diffusion" for r in made]
    picture = read_image(tmp_path / "figures" / "dmfuse" / "figure11.png")
    assert picture.shape[-2:] == (3 * 2 * 242 // 2, 6 * 322 // 2)


def test_the_first_component_is_the_direction_of_most_variance():
    generator = torch.Generator().manual_seed(0)
    pattern = torch.rand(1, 1, 12, 16, generator=generator)
    loud = torch.tensor([1.0, 3.0, -2.0]).reshape(1, 3, 1, 1)
    shown = probes.first_component(loud * pattern + 0.01 * torch.rand(1, 3, 12, 16, generator=generator))
    assert torch.corrcoef(torch.stack([shown.flatten(), pattern.flatten()]))[0, 1].abs() > 0.99
