"""Staged cases: in each, by construction, one camera misses what the other shows."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from fusionlab.data.pair import Pair
from fusionlab.scenes import CASES, Settings, open_scenes, scene
from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.cases import stage
from fusionlab.scenes.lots import draw_plan
from fusionlab.scenes.paint import paint_scene
from fusionlab.scenes.plan import Plan
from fusionlab.scenes.weather import draw_weather


def shown(seed: int, case: str, name: str, condition: str, size: tuple[int, int]) -> tuple[Pair, np.ndarray]:
    """The pair of a case and where the thing called `name` is seen in it, (H, W) bool."""
    number = stage(draw_plan(seed), case).owners.index(name) + 1
    pair = scene(seed, *size, condition, Settings(case=case))
    return pair, pair.truth.owner.numpy() == number


def painted(plan: Plan, seed: int, height: int = 180, width: int = 240) -> Canvas:
    canvas = Canvas(plan.camera, height, width)
    paint_scene(canvas, plan, draw_weather(plan, "day", seed))
    return canvas


@pytest.mark.parametrize("case", CASES)
def test_every_street_can_stage_every_case(case):
    for seed in range(300):
        plan = draw_plan(seed)
        staged, empty = stage(plan, case), stage(replace(plan, people=()), case)
        for one in (staged, empty):
            new = len(set(one.people) - set(plan.people)) + len(set(one.cars) - set(plan.cars))
            assert new == {"sign": 0, "glare": 2}.get(case, 1)
        if case == "camouflage":
            person = staged.people[0]
            assert all(np.hypot(car.x - person.x, car.z - person.z) > 4 for car in staged.cars)
    assert stage(plan, None) is plan


# What each case is about, and the camera that shows it: 1 infrared alone, 2 visible alone.
SEEN = [
    ("camouflage", "person 0", "day", 30, 1),
    ("camouflage", "person 0", "dusk", 5, 1),
    ("glare", "person 0", "night", 10, 1),
    ("glare", "person 0", "dusk", 5, 1),
    ("windscreen", "driver 0", "day", 12, 2),
    ("sign", "print 0", "day", 12, 2),
    ("sign", "print 0", "dusk", 5, 2),
    ("sign", "print 0", "fog", 5, 2),
]


@pytest.mark.parametrize(("case", "name", "condition", "seeds", "camera"), SEEN)
def test_one_camera_alone_carries_the_signal(case, name, condition, seeds, camera):
    for seed in range(seeds):
        pair, mask = shown(seed, case, name, condition, (240, 320))
        assert mask.sum() > 60
        assert set(pair.truth.both.numpy()[mask].tolist()) == {camera}, seed


def test_a_suit_sends_back_as_much_light_as_the_leaves_about_it():
    for seed in range(6):
        pair, mask = shown(seed, "camouflage", "person 0", "day", (240, 320))
        around = binary_dilation(mask, iterations=6) & ~binary_dilation(mask, iterations=1)
        vi, ir = (picture[0, 0].numpy() for picture in (pair.truth.vi, pair.truth.ir))
        assert abs(vi[mask].mean() - vi[around].mean()) < 0.03
        assert ir[mask].mean() - ir[around].mean() > 0.2


def test_a_driver_changes_the_visible_and_not_the_infrared():
    for seed in range(4):
        plan = stage(draw_plan(seed), "windscreen")
        alone = replace(plan, cars=(replace(plan.cars[0], driver=False), *plan.cars[1:]))
        with_driver, without = painted(plan, seed), painted(alone, seed)
        mask = with_driver.owner == plan.owners.index("driver 0") + 1
        assert np.array_equal(with_driver.heat, without.heat)
        assert (with_driver.radiance - without.radiance)[:, mask].mean() > 0.05
        assert (without.owner[mask] == 1).all()  # all of it on the car


def test_print_has_one_temperature_and_two_colours():
    for seed in range(4):
        plan = stage(draw_plan(seed), "sign")
        canvas = painted(plan, seed)
        mask = canvas.owner == plan.owners.index("print 0") + 1
        assert mask.sum() > 60 and np.ptp(canvas.heat[mask]) < 1e-6
        assert np.percentile(canvas.radiance[1][mask], 95) > 3 * np.percentile(canvas.radiance[1][mask], 5)


def test_glare_dazzles_the_lens():
    for seed in range(3):
        pair, mask = shown(seed, "glare", "person 0", "night", (180, 240))
        seen, clear = pair.truth.seen[0][0, 0].numpy(), pair.truth.vi[0, 0].numpy()
        assert seen[mask].mean() > clear[mask].mean() + 0.2


@pytest.mark.parametrize("seed", [4, 8])
def test_a_parked_car_keeps_a_warm_bonnet(seed):
    pair, mask = shown(seed, "parked car", "car 0", "day", (180, 240))
    heat = pair.truth.ir[0, 0].numpy()[mask]
    assert np.percentile(heat, 98) > np.median(heat) + 0.2
    assert pair.truth.names[0] == "car 0"


def test_parts_have_no_box_and_cases_choose_their_light():
    for case in ("windscreen", "sign"):
        names = scene(2, 96, 128, "day", Settings(case=case)).truth.names
        assert names and all(name.startswith(("car", "person")) for name in names)
    assert scene(0, 48, 64, settings=Settings(case="sign")).name == "scene-0-day"
    assert open_scenes(2, 0, settings=Settings(case="glare")).names == ("test-0000-night", "test-0001-night")
