"""Studies of metrics: each form computed once, records of small runs, noise, truth."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fusionlab import targets
from fusionlab.bench import records, results
from fusionlab.bench.table import scored
from fusionlab.data import open_pairs
from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.methods import DEFAULT, METHODS
from fusionlab.metrics import CONVENTIONS, METRICS
from fusionlab.targets import metrics


def test_a_mean_correlation_leaves_out_what_has_none():
    found = metrics.correlated("x", [1.0, math.nan, 3.0], SimpleNamespace(sha256="0" * 64), "a note")
    assert (found.value, found.error) == (2.0, 1.0)


def test_every_form_is_computed_once_and_by_its_saving_rule(monkeypatch):
    class Counting:
        calls = 0

        def __call__(self, ir, vi, fused):
            Counting.calls += 1
            return fused.amax((1, 2, 3))

    top = metrics.Variant("top", "1", "test", Counting())
    for name, save in (("one", "clip"), ("two", "stretch"), ("three", "clip")):
        monkeypatch.setitem(
            CONVENTIONS, name, replace(CONVENTIONS["reference"], save=save, variants={"SD": top})
        )
    pairs = open_pairs("scenes", 2)
    images = {"half": lambda ir, vi: ir / 2, "infrared": lambda ir, vi: ir}
    rule = metrics.scores_of(images, dict.fromkeys(("one", "two", "three"), ["SD"]))
    found = {(score.row, score.convention): score.values for score in scored(rule, pairs)}
    assert Counting.calls == 2 * len(pairs)  # both images and both conventions that clip at once
    assert found["half", "two"] == found["infrared", "two"] == (255, 255)
    assert max(found["half", "one"]) <= 128 < min(found["infrared", "one"])
    assert found["half", "one"] == found["half", "three"]


def test_rows_of_conventions_carry_their_papers_and_their_weights(tmp_path):
    made = targets.reproduce("metrics/conventions", tmp_path, "mmdrfuse", "smoke", "scenes")
    papers = {"comofusion", "coconet", "mmdrfuse", "dmfuse", "caf"}
    assert {record.convention for record in made} == papers | {"reference"}
    assert {len(record.weights) for record in made} == {64}
    assert records.lint(made) == []
    copy = targets.reproduce("metrics/conventions", tmp_path, "infrared", "smoke", "scenes")
    assert {record.row for record in copy} == {"infrared"}
    assert "SCD" not in {record.metric for record in copy}  # a copy has none


def test_caf_is_measured_on_the_three_pairs_of_m3fd(tmp_path, shared, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(shared / "data"))
    made = targets.reproduce("metrics/conventions", tmp_path, "average", "laptop", "m3fd")
    assert {record.metric for record in made if record.convention == "caf"} == {"SD", "MI", "VIF", "SCD"}
    assert {record.n for record in made} == {"3 of 4200"}


def test_noise_raises_entropy_and_gradients_and_nothing_else_that_sees_the_sources(tmp_path):
    made = targets.reproduce("metrics/noise", tmp_path, None, "smoke", "scenes")
    value = {(record.row, record.metric): record.value for record in made}
    for metric in ("EN", "SD", "SF", "AG"):
        assert value["noise 20", metric] > value["noise 0", metric]
    for metric in ("MI", "VIF", "Qabf", "SSIM", "SCD", "CC"):
        assert value["noise 20", metric] < value["noise 0", metric]


def test_one_row_of_each_study(tmp_path):
    flips = targets.reproduce("metrics/rank-flips", tmp_path, "SSIM", "smoke", "scenes")
    ranks = [r.value for r in flips if r.convention == "reference" and r.metric.startswith("rank of ")]
    assert sorted(ranks) == list(range(1, 11))
    both = targets.reproduce("metrics/correlations", tmp_path, "SF ~ AG", "smoke", "scenes")
    assert {record.metric for record in both} == {"over fusers", "over pairs"}
    assert both[0].value > 0.5
    alone = targets.reproduce("metrics/correlations", tmp_path, "EN ~ AG", "smoke", "scenes")
    assert all(-1 <= record.value <= 1 for record in alone)
    agreeing = targets.reproduce("metrics/truth", tmp_path, "PSNR", "smoke")
    assert [record.metric for record in agreeing][:2] == ["with PSNR, fusers", "with PSNR, all"]
    preview = targets.reproduce("metrics/truth-preview", tmp_path, "average", "smoke")
    told = [record.metric for record in preview if record.convention == "truth"]
    assert sorted(told) == ["PSNR", "kept ir", "kept vi"]
    assert {record.n for record in preview} == {"4"}
    assert records.lint([*flips, *both, *alone, *agreeing, *preview]) == []


def test_contenders_are_all_that_is_shipped_and_are_ranked_over_four(shared, tmp_path):
    made = targets.reproduce("metrics/default", tmp_path, None, "smoke")
    assert records.lint(made) == []
    shipped = set(METHODS) - {"mmdrfuse-teacher"}  # released weights alone
    assert {record.row for record in made} == shipped
    blind = {(r.metric, r.convention, r.split) for r in made if r.data == "roadscene"}
    assert blind == {(metric, "reference", "val") for metric in ("SSIM", "VIF", "Qabf")}
    told = {(r.metric, r.convention, r.split) for r in made if r.data == "scenes"}
    assert told == {(metric, "truth", "val") for metric in ("kept", "PSNR", "signal")}
    # By hand: the place in each of the four columns, their mean, the best first.
    values = {}
    for record in made:
        values.setdefault(record.metric, {})[record.row] = record.value
    places = {name: [] for name in shipped}
    for metric in ("SSIM", "VIF", "Qabf", "kept"):
        for place, name in enumerate(sorted(shipped, key=values[metric].get, reverse=True), 1):
            places[name].append(place)
    ranks = metrics.best_first(made)
    assert ranks == pytest.approx({name: sum(found) / 4 for name, found in places.items()})
    assert list(ranks.values()) == sorted(ranks.values())


def test_the_default_of_fuse_is_the_best_of_its_promoted_record():
    found = [r for data in ("roadscene", "scenes") for r in results.results("metrics/default", data)]
    assert {record.row for record in found} == set(metrics.CONTENDERS)
    assert {(record.split, record.run.profile) for record in found} == {("val", "laptop")}
    ranks = metrics.best_first(found)
    assert next(iter(ranks)) == DEFAULT, ranks
    # Nothing of the record is another network's than the one that is shipped.
    hashes = {record.row: record.weights for record in found}
    shipped = {name: load(name).sha256 for name in ranks}
    assert hashes == shipped


def test_unknown_rows_and_data_are_refused(tmp_path):
    for target in ("conventions", "noise", "rank-flips", "correlations", "truth", "truth-preview"):
        with pytest.raises(UserError, match="nobody"):
            targets.reproduce(f"metrics/{target}", tmp_path, "nobody", "smoke")
    with pytest.raises(UserError, match="not measured on 'tno'; it is on scenes"):
        targets.reproduce("metrics/truth", tmp_path, data="tno", profile="smoke")


def test_studies_name_metrics_that_there_are():
    named = {*metrics.HEADLINE, *metrics.CHEAP, *metrics.TABLES["metrics/rank-flips"].rows}
    assert named <= set(METRICS)
    for wanted in metrics.PAPERS.values():
        assert all(set(found) <= set(CONVENTIONS[name].variants) for name, found in wanted.items())
