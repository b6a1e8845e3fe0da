"""Samples and denoisers: measures that tell crops from their controls, trainings apart from what judges."""

import pytest

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs, read_image
from fusionlab.fuser import load
from fusionlab.targets import learnt
from fusionlab.targets.dmfuse import singles


def test_samples_are_judged_by_measures_that_tell_crops_from_their_controls(shared, tmp_path):
    rows = ("training crops", "crops, channels shuffled", "Gaussian of the spectrum", "blank")
    held = open_pairs("roadscene", split="val")
    run = Run.begin(None, "laptop", 0, "cpu", "test")
    found = {
        row: {s.metric: s for s in learnt.TABLES["comofusion/samples"].measure({row: row}, held, run)}
        for row in rows
    }

    def means(metric):
        return [found[row][metric].value for row in rows]

    real, shuffled, gaussian, blank = means("distance of 8x8 patches")
    assert max(real, shuffled) < 0.5 * min(gaussian, blank)
    real, shuffled, gaussian, blank = means("edges shared")
    assert real > 0.15 and max(abs(shuffled), abs(gaussian), abs(blank)) < 0.03
    assert all(s.error > 0 for row in rows[:3] for s in found[row].values())
    made = targets.reproduce("comofusion/samples", tmp_path, profile="smoke")
    assert records.lint(made) == []
    assert {r.weights for r in made if r.row.startswith("ours")} == {load("comofusion").sha256}
    distance = {r.row: r.value for r in made if r.metric == "distance at t 0.5"}
    assert distance["Gaussian denoiser"] < distance["untrained U-Net"] and len(distance) == 4
    picture = read_image(tmp_path / "figures" / "comofusion" / "samples.png")
    assert picture.shape == (1, 1, 2 * 10 * 34, 2 * 16 * 34)


def test_denoisers_are_trained_apart_from_what_they_are_judged_on(shared, tmp_path, monkeypatch, seen):
    trained = []
    train_ddpm = learnt.train_ddpm

    def watched(model, images, *arguments, **options):
        trained.append(len(images))
        return train_ddpm(model, images, *arguments, **options)

    monkeypatch.setattr(learnt, "train_ddpm", watched)
    made = targets.reproduce("dmfuse/denoisers", tmp_path, profile="smoke")
    assert records.lint(made) == []
    value = {(record.row, record.metric): record.value for record in made}
    rows = list(learnt.TABLES["dmfuse/denoisers"].rows)
    assert len(value) == len(rows) * len(learnt.JUDGED_AT) and {r.split for r in made} == {"val"}
    assert trained == [len(singles(Run.begin(None, "smoke")))] * 2
    unseen = open_pairs("roadscene", 2, split="val")
    assert all(scored == seen.of(unseen) for scored in seen.scored)
    assert set(seen.of(unseen)).isdisjoint(seen.of(open_pairs("roadscene", split="train")))
    for t in learnt.JUDGED_AT:
        line, control = (value[row, f"eps-MSE at t {t}"] for row in ("Wiener filter", "pixel by pixel"))
        assert 0 < line < 0.75 * control < 1  # neighbours help
        # Untrained: one answers 0 for the noise, the other c_skip x, the best for deviation 0.5 alone.
        assert value["noise prediction", f"eps-MSE at t {t}"] == pytest.approx(1, abs=0.06)
        assert value["EDM preconditioning", f"eps-MSE at t {t}"] < 1.2 * control
    assert sorted(file.name for file in tmp_path.glob("checkpoints/*/*")) == [
        "edm-0.safetensors",
        "paper-0.safetensors",
    ]
    again = targets.reproduce("dmfuse/denoisers", tmp_path, "EDM preconditioning", "smoke")
    assert [r.value for r in again] == [r.value for r in made if r.row == "EDM preconditioning"]
