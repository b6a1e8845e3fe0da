"""The synthetic street: reproducible, any size, truth agreeing with the pictures, statistics of real sets."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, gaussian_filter

from fusionlab.errors import UserError
from fusionlab.scenes import (
    CONDITIONS,
    GAINS,
    LABELS,
    SPLITS,
    Box,
    Settings,
    open_scenes,
    scene,
    scene_seed,
)
from fusionlab.scenes.air import through_air
from fusionlab.scenes.cameras import develop, exposure_gain, gain_control, gaussian_blur
from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.lots import draw_plan
from fusionlab.scenes.materials import MATERIALS, band_radiance, surface_radiance
from fusionlab.scenes.paint import paint_scene
from fusionlab.scenes.textures import overlap, stripes, tile_noise
from fusionlab.scenes.truth import clarity
from fusionlab.scenes.weather import Weather, draw_weather

PERSON = 2


def painted(seed: int, condition: str, height: int = 120, width: int = 160) -> tuple[Canvas, Weather]:
    """A street in radiance, before the cameras, with its depth."""
    plan = draw_plan(seed)
    weather = draw_weather(plan, condition, seed)
    canvas = Canvas(plan.camera, height, width)
    paint_scene(canvas, plan, weather)
    return canvas, weather


def halved(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape
    return image.reshape(rows // 2, 2, columns // 2, 2).mean((1, 3))


def test_a_seed_fixes_the_scene_and_leaves_torch_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = scene(5, 60, 80)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    np.random.seed(3)
    again = scene(5, 60, 80)
    for one, other in ((first.ir, again.ir), (first.vi, again.vi), (first.chroma, again.chroma)):
        assert torch.equal(one, other)
    assert torch.equal(first.truth.labels, again.truth.labels) and first.truth.boxes == again.truth.boxes
    assert not torch.equal(first.vi, scene(6, 60, 80).vi)
    assert first.name.split("-")[-1] in CONDITIONS


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (121, 40), (61, 159)])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_any_size_gives_valid_pictures(size, condition):
    pair = scene(3, *size, condition=condition)
    assert pair.ir.shape == pair.vi.shape == (1, 1, *size) and pair.chroma.shape == (1, 2, *size)
    assert pair.truth.ir.shape == pair.truth.vi.shape == (1, 1, *size)
    for image in (pair.ir, pair.vi, pair.chroma, pair.truth.vi, pair.truth.ir):
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
        assert image.isfinite().all()
    assert pair.truth.labels.dtype == torch.int64 and set(pair.truth.labels.unique().tolist()) <= set(LABELS)
    assert pair.truth.saliency.dtype == torch.bool and pair.truth.saliency.shape == size


@pytest.mark.parametrize("condition", CONDITIONS)
def test_twice_the_size_shows_the_same_scene(condition):
    small, large = scene(9, 96, 128, condition).truth, scene(9, 192, 256, condition).truth
    for role in ("vi", "ir"):
        one, two = getattr(small, role)[0, 0].numpy(), halved(getattr(large, role)[0, 0].numpy())
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95
        assert abs(one.mean() - two.mean()) < 0.02
    assert (small.labels == large.labels[::2, ::2]).float().mean() > 0.97


def test_conditions_share_one_street():
    truths = [scene(11, 96, 128, condition).truth for condition in CONDITIONS]
    for other in truths[1:]:
        assert torch.equal(truths[0].labels, other.labels) and truths[0].boxes == other.boxes
    means = [float(scene(11, 96, 128, condition).vi.mean()) for condition in ("day", "dusk", "night")]
    assert means[0] > means[1] > means[2]


def test_boxes_are_tight_around_what_is_visible():
    found = 0
    for seed in range(10):
        truth = scene(seed, 120, 160, "day").truth
        labels = truth.labels.numpy()
        covered = np.zeros(labels.shape, bool)
        for box in truth.boxes:
            x0, y0, x1, y1, label = box
            assert isinstance(box, Box) and 0 <= x0 < x1 <= 160 and 0 <= y0 < y1 <= 120
            inside = labels[y0:y1, x0:x1] == label
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
            covered[y0:y1, x0:x1] = True
            found += 1
        assert ((labels == 1) | (labels == PERSON))[~covered].sum() < 24  # specks have no box
    assert found > 25


def contrast(image: np.ndarray, box: Box, labels: np.ndarray) -> float:
    """Mean of a person less the mean of the unlabelled pixels around."""
    body = np.zeros(labels.shape, bool)
    body[box.y0 : box.y1, box.x0 : box.x1] = labels[box.y0 : box.y1, box.x0 : box.x1] == box.label
    ring = binary_dilation(body, iterations=5) & ~binary_dilation(labels > 0, iterations=1)
    return float(image[body].mean() - image[ring].mean()) if ring.sum() > 20 else np.nan


def contrasts(condition: str, seeds: range) -> list[np.ndarray]:
    """For each scene, (people, 2): contrast of each grown enough person in visible and infrared."""
    scenes = []
    for seed in seeds:
        truth = scene(seed, 120, 160, condition).truth
        labels, pictures = truth.labels.numpy(), (truth.vi[0, 0].numpy(), truth.ir[0, 0].numpy())
        tall = [box for box in truth.boxes if box.label == PERSON and box.y1 - box.y0 > 12]
        rows = [[contrast(picture, box, labels) for picture in pictures] for box in tall]
        scenes.append(np.array(rows).reshape(-1, 2))
    return scenes


@pytest.mark.parametrize("condition", CONDITIONS)
def test_people_are_warmer_than_what_surrounds_them(condition):
    people = np.concatenate(contrasts(condition, range(30, 35)))
    infrared = people[:, 1][np.isfinite(people[:, 1])]
    assert len(infrared) > 8
    assert np.mean(infrared > 0.06) > 0.9 and infrared.min() > 0


def test_at_night_some_people_show_in_infrared_alone():
    scenes = contrasts("night", range(40, 50))
    hidden = [np.sum((np.abs(s[:, 0]) < 0.05) & (s[:, 1] > 0.3)) for s in scenes]
    assert sum(count > 0 for count in hidden) >= 5
    people = np.concatenate(scenes)
    assert np.nanmedian(people[:, 1]) > 4 * np.nanmedian(np.abs(people[:, 0]))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_sky_is_colder_than_the_street(condition):
    compared = 0
    for seed in range(6):
        canvas, _ = painted(seed, condition)
        sky, near = canvas.nearness < 1 / 1000, canvas.nearness > 1 / 60
        if sky.sum() > 200:
            compared += 1
            assert canvas.heat[sky].mean() < 0.8 * canvas.heat[near].mean()
    assert compared >= 3


def test_saliency_marks_people_and_warm_parts_of_cars():
    for seed in range(4):
        truth = scene(seed, 120, 160, "night").truth
        labels, saliency = truth.labels, truth.saliency
        assert saliency[labels == PERSON].all() and not saliency[(labels != PERSON) & (labels != 1)].any()
        if saliency.any():
            assert truth.ir[0, 0][saliency].mean() > truth.ir.mean() + 0.2


def test_fog_hides_the_far_from_the_visible_camera_not_from_the_infrared():
    for seed in (2, 3, 8):
        canvas, weather = painted(seed, "fog", 160, 214)
        visible, infrared = through_air(canvas, weather)
        depth = 1 / np.maximum(canvas.nearness, 1e-6)
        kept = []
        for low, high in ((6, 12), (60, 120)):
            band = (depth > low) & (depth < high)
            assert band.sum() > 100
            kept.append([picture[band].std() / clear[band].std() for picture, clear in (
                (visible[1], canvas.radiance[1]), (infrared, canvas.heat))])  # fmt: skip
        (near_vi, near_ir), (far_vi, far_ir) = kept
        assert far_vi < 0.5 * near_vi and far_ir > 0.75 * near_ir and far_ir > 2 * far_vi
        transmission = np.exp(-weather.beta_ir * 80)
        assert np.exp(-weather.beta * 80) < 0.3 < 0.8 < transmission


def test_truth_is_free_of_noise_and_fog():
    day, fog = scene(4, 120, 160, "day"), scene(4, 120, 160, "fog")
    residual = (day.ir - day.truth.ir).numpy()
    assert 0.004 < np.diff(residual[..., ::-1], axis=2).std() / np.sqrt(2) < 0.012
    assert residual.mean((0, 1, 2)).std() > residual.std() / np.sqrt(120) * 2  # columns share an offset
    assert fog.truth.vi.std() > 1.3 * fog.vi.std()


def test_splits_are_disjoint_and_named():
    seeds = {split: {scene_seed(s, split, k) for s in range(3) for k in range(300)} for split in SPLITS}
    assert all(len(v) == 900 for v in seeds.values())
    assert not seeds["train"] & seeds["test"] and not seeds["train"] & seeds["val"]
    assert not seeds["val"] & seeds["test"]
    pairs = open_scenes(6, seed=0, height=40, width=48)
    assert pairs.data == "scenes" and pairs.split == "test"
    assert pairs.names[:3] == ("test-0000-day", "test-0001-dusk", "test-0002-night")
    pair = pairs[3]
    assert pair.name == "test-0003-fog" and pair.vi.shape == (1, 1, 40, 48)
    assert torch.equal(pair.vi, open_scenes(9, seed=0, height=40, width=48)[3].vi)
    assert not torch.equal(pair.vi, open_scenes(9, seed=1, height=40, width=48)[3].vi)
    assert open_scenes(2, seed=0, condition="night").names == ("test-0000-night", "test-0001-night")


def figures(image: torch.Tensor) -> tuple[float, float, float]:
    """Entropy in bits, standard deviation and mean of the 8-bit picture."""
    grey = np.floor(image.numpy() * 255 + 0.5).astype(int).ravel()
    share = np.bincount(grey, minlength=256) / grey.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum()), float(grey.std()), float(grey.mean())


@pytest.mark.parametrize("name", ["nonsense", "test-0001-hail", "train-0000-day", "test-0009-fog", "test-3"])
def test_only_the_scenes_of_a_set_can_be_read_from_it(name):
    pairs = open_scenes(4, seed=0)
    assert pairs.read(pairs.names[1]).name == pairs.names[1]
    with pytest.raises(UserError, match=f"no scene '{name}' among these 4 of split test"):
        pairs.read(name)


def test_statistics_resemble_real_sets():
    rows = {c: [scene(s, 120, 160, c) for s in range(60, 65)] for c in CONDITIONS}
    visible = {c: np.mean([figures(p.vi) for p in pairs], 0) for c, pairs in rows.items()}
    infrared = np.mean([figures(p.ir) for pairs in rows.values() for p in pairs], 0)
    entropy, spread, _ = np.mean(list(visible.values()), 0)
    assert 6.2 < entropy < 7.0 and 32 < spread < 46
    assert 5.5 < infrared[0] < 7.5 and 25 < infrared[1] < 55
    assert 28 < visible["night"][2] < 60 and 90 < visible["day"][2] < 140


@pytest.mark.parametrize(
    "call",
    [
        lambda: scene(0, condition="rain"),
        lambda: scene(0, 31, 64),
        lambda: scene(-1),
        lambda: open_scenes(3, 0, split="all"),
        lambda: open_scenes(3, 0, condition="noon"),
        lambda: open_scenes(3, 0, height=16),
        lambda: open_scenes(-1, 0),
        lambda: open_scenes(3, -1),
    ],
)
def test_mistakes_are_named(call):
    with pytest.raises(UserError, match=r"'rain'|31x64|-1|'all'|'noon'|16x320"):
        call()


def test_patterns_are_averaged_over_pixels():
    x = np.arange(0, 30, 0.5, dtype=np.float32) + 0.25
    assert stripes(x, 3.0, 1.2, 0.5).mean() == pytest.approx(0.4, abs=1e-5)
    assert np.allclose(stripes(x, 3.0, 1.2, 300.0), 0.4, atol=5e-3)
    assert (overlap(x, 4.1, 9.3, 0.5) * 0.5).sum() == pytest.approx(5.2, abs=1e-4)


def test_noise_is_normal_at_its_own_scale_and_fades_when_small():
    u, v = np.meshgrid(np.arange(256, dtype=np.float32) + 0.5, np.arange(256, dtype=np.float32) + 0.5)
    fine = tile_noise("grain", u, v, 1.0, 1.0)
    assert abs(fine.mean()) < 1e-4 and fine.std() == pytest.approx(1.0, abs=1e-3)
    assert np.allclose(fine, tile_noise("grain", u + 256, v - 512, 1.0, 1.0))
    assert tile_noise("grain", u, v, 1.0, 8.0).std() < 0.4


def owned(truth, name: str) -> np.ndarray:
    """Pixels of an object, found through its box."""
    box = truth.boxes[truth.names.index(name)]
    inside = truth.owner[box.y0 : box.y1, box.x0 : box.x1]
    fits = [
        int(n)
        for n in inside.unique()
        if n > 0 and Box(*_extent(truth.owner.numpy() == int(n)), box.label) == box
    ]
    assert len(fits) == 1
    return truth.owner.numpy() == fits[0]


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_radiance_follows_planck_and_a_mirror_shows_the_sky():
    # Stefan and Boltzmann: all bands together give sigma T^4 / pi, and 8 to 14 um hold 37.6 % of it at 300 K.
    assert band_radiance(26.85) == pytest.approx(0.376 * 5.670374e-8 * 300**4 / np.pi, rel=0.01)
    temperatures = dict.fromkeys(MATERIALS, 20.0) | {"zenith": -30.0, "skyline": -10.0}
    radiance = surface_radiance(temperatures)
    sky = (float(band_radiance(-30)) + float(band_radiance(-10))) / 2
    assert radiance["body"] == pytest.approx(0.9 * float(band_radiance(20)) + 0.1 * sky)
    assert radiance["glass"] < radiance["road"] < radiance["skin"] < float(band_radiance(20))


def test_one_object_can_be_heated_without_touching_the_rest():
    names = scene(2, 120, 160, "day").truth.names
    cool, warm = (scene(2, 120, 160, "day", Settings(temperatures={names[-1]: t})) for t in (5.0, 45.0))
    mask = owned(cool.truth, names[-1])
    change = (warm.truth.ir - cool.truth.ir)[0, 0].numpy()
    assert change[mask].mean() > 0.5 and np.abs(change[~binary_dilation(mask, iterations=5)]).max() == 0
    assert torch.equal(cool.vi, warm.vi)
    roads = [scene(2, 60, 80, "day", Settings(temperatures={"road": t})).truth.ir.mean() for t in (5, 20, 30)]
    assert roads[0] + 0.05 < roads[1] < roads[2] - 0.05


def test_fog_and_smoke_cost_the_visible_more():
    def likeness(role: str, **choice: float) -> float:
        pair = scene(1, 120, 160, "day", Settings(**choice))
        seen, truth = (getattr(p, role)[0, 0].numpy() for p in (pair, pair.truth))
        kept = np.cov(seen.ravel(), truth.ravel())[0, 1] / truth.var()
        return float(kept)

    for what, doses in (("fog", (0.0, 0.02, 0.08)), ("smoke", (0.0, 0.5, 2.0))):
        visible = [likeness("vi", **{what: dose}) for dose in doses]
        infrared = [likeness("ir", **{what: dose}) for dose in doses]
        assert visible[0] > visible[1] + 0.1 > visible[2] + 0.1, what
        assert infrared[2] > 0.5 and infrared[2] > 1.5 * visible[2], what
    clear, foggy = (scene(1, 96, 128, "day", Settings(fog=fog)).truth for fog in (0.0, 0.05))
    assert torch.equal(clear.depth, foggy.depth) and (clear.both & 2).sum() > 1.5 * (foggy.both & 2).sum()


def test_the_hour_moves_sun_lamps_and_temperatures():
    pairs = {
        hour: scene(3, 96, 128, settings=Settings(hour=hour)) for hour in (2, 7.0, 9, 12, 17.0, 18.2, 23)
    }
    names = [pairs[hour].name.split("-")[-1] for hour in pairs]
    assert names == ["night", "day", "day", "day", "day", "dusk", "night"]
    level = {hour: float(pair.vi.mean()) for hour, pair in pairs.items()}
    assert level[2] < level[18.2] < level[12] and level[23] == pytest.approx(level[2], abs=0.05)
    ground = pairs[7].truth.labels == 0
    assert (pairs[17].truth.ir - pairs[7].truth.ir)[0, 0][ground].mean() > 0.05  # the ground lags the sun
    noon, later = (pairs[hour].truth.vi for hour in (12, 9))
    assert (noon - later).abs().mean() > 0.01  # shadows move
    assert torch.equal(pairs[2].truth.labels, pairs[12].truth.labels)


def test_polarity_and_gain_are_those_of_the_camera():
    white, black = (scene(4, 96, 128, "day", Settings(polarity=name)) for name in ("white-hot", "black-hot"))
    assert (white.ir + black.ir - 1).abs().max() < 1.5 / 255
    assert torch.equal(white.vi, black.vi) and torch.equal(white.truth.saliency, black.truth.saliency)
    by_gain = {gain: scene(4, 96, 128, "fog", Settings(gain=gain)).ir for gain in GAINS}
    low, high = np.percentile(by_gain["linear"].numpy(), (0.5, 99.5))
    assert low < 0.02 and high > 0.98
    entropies = {gain: figures(picture)[0] for gain, picture in by_gain.items()}
    assert entropies["plateau"] > entropies["linear"] > entropies["fixed"]
    image = np.random.default_rng(0).normal(size=(64, 64))
    levels, values = gain_control(image, "plateau")
    assert np.all(np.diff(values) >= 0) and values[0] == 0 and values[-1] == pytest.approx(1)
    steepest = (np.diff(values) / np.diff(levels)).max()
    assert steepest < 4.5 / (image.max() - image.min())  # no count above four times the mean one


@pytest.mark.parametrize("shift", [(3, -5), (0, 2), (-1.5, 0)])
def test_the_infrared_picture_is_displaced_by_what_the_truth_says(shift):
    pair = scene(5, 96, 128, "day", Settings(shift=shift))
    assert pair.truth.shift == shift
    moved, still = pair.ir[0, 0].numpy(), pair.truth.ir[0, 0].numpy()
    errors = {}
    for rows in range(-4, 5):
        for columns in range(-6, 7):
            inner = moved[8 + rows : 88 + rows, 8 + columns : 120 + columns]
            errors[rows, columns] = float(np.abs(inner - still[8:88, 8:120]).mean())
    best = min(errors, key=errors.__getitem__)
    assert max(abs(best[0] - shift[0]), abs(best[1] - shift[1])) <= 0.5


def test_both_is_decided_by_contrast_against_noise():
    rng = np.random.default_rng(1)
    clean = 0.5 + 0.2 * np.sin(np.arange(96) / 3)[None, :] * np.ones((96, 1))
    nothing = np.zeros(clean.shape, np.int32)
    noisy = clean + 0.02 * rng.standard_normal(clean.shape)
    lost = 0.5 + 0.02 * rng.standard_normal(clean.shape)
    assert np.median(clarity(noisy, clean, nothing)) == pytest.approx(
        0.2 / 3 * 0.02 * 96 * 0.71 / 0.02, rel=0.2
    )
    assert np.median(clarity(lost, clean, nothing)) < 0.5
    owner = nothing.copy()
    owner[30:60, 40:60] = 1
    shown = clean.copy()
    shown[owner == 1] += 0.4
    ratio = clarity(shown + 0.02 * rng.standard_normal(clean.shape), shown, owner)
    assert np.ptp(ratio[owner == 1]) == 0 and ratio[owner == 1].min() > 5
    assert clarity(clean, clean * 0 + 0.5, owner).max() == 0  # no truth, no signal


def test_truth_says_which_camera_carries_what():
    day, night = (scene(7, 120, 160, condition).truth for condition in ("day", "night"))
    for truth in (day, night):
        assert truth.both.dtype == torch.uint8 and truth.both.shape == truth.labels.shape
        people = truth.both[truth.labels == PERSON]
        assert ((people == 1) | (people == 3)).float().mean() > 0.9
        low, high = torch.minimum(truth.vi, truth.ir), torch.maximum(truth.vi, truth.ir)
        assert ((truth.weighted >= low - 1e-5) & (truth.weighted <= high + 1e-5)).all()
    assert (day.both >= 2).sum() > 1.5 * (night.both >= 2).sum()
    alone = night.both == 1
    nearer = (night.weighted - night.ir).abs()[0, 0] < (night.weighted - night.vi).abs()[0, 0]
    assert nearer[alone].float().mean() > 0.9
    assert day.depth.min() > 1 and day.depth.max() == 1500
    lower = day.depth[-1].median()
    assert lower < day.depth[90].median() and day.depth.dtype == torch.float32


def test_blur_and_tone_curve_agree_with_plain_formulas():
    image = np.random.default_rng(2).uniform(size=(3, 31, 40)).astype(np.float32)
    for sigma in (0.5, 1.7):
        slow = gaussian_filter(image, (0, sigma, sigma))
        assert np.allclose(gaussian_blur(image, sigma), slow, atol=2e-6)
    x = np.linspace(0, 0.5, 400, dtype=np.float32)
    srgb = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    assert np.abs(develop(x) - srgb).max() < 0.002
    gain = exposure_gain(image, 0.4)
    grey = np.tensordot([0.299, 0.587, 0.114], develop(image * np.float32(gain)), 1)
    assert grey.mean() == pytest.approx(0.4, abs=0.005)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Settings(polarity="hot"),
        lambda: Settings(gain="auto"),
        lambda: Settings(case="ghost"),
        lambda: Settings(hour=25),
        lambda: Settings(fog=-1),
        lambda: Settings(shift=(0, 99)),
        lambda: Settings(temperatures={"moon": 3}),
        lambda: Settings(temperatures={"road": 999}),
        lambda: scene(0, settings=Settings(temperatures={"person 77": 3})),
        lambda: scene(0, condition="night", settings=Settings(hour=12)),
        lambda: scene(0, condition="day", settings=Settings(case="glare")),
        lambda: scene(0, condition="night", settings=Settings(case="sign")),
        lambda: open_scenes(2, 0, settings=Settings(case="sign", hour=23)),
        lambda: open_scenes(2, 0, condition="night", settings=Settings(hour=12)),
    ],
)
def test_settings_outside_their_range_are_named(call):
    with pytest.raises(UserError, match=r"hot|auto|ghost|25|-1|99|moon|999|person 77|hour 12|glare|sign"):
        call()
