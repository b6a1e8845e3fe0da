"""Paints a plan under a weather: the street first, then what stands on it, far to near."""

from collections.abc import Callable
from functools import partial

import numpy as np

from fusionlab.data.scenes import cars, objects, people
from fusionlab.data.scenes.buildings import paint_walls
from fusionlab.data.scenes.canvas import Canvas, Sprite
from fusionlab.data.scenes.light import Caster, Cover, irradiance
from fusionlab.data.scenes.people import Limb
from fusionlab.data.scenes.plan import Car, Person, Plan, Post, Tree
from fusionlab.data.scenes.street import building_shade, paint_ground, paint_horizon, paint_sky
from fusionlab.data.scenes.textures import Array, floats, pixels
from fusionlab.data.scenes.walls import feet, find_walls
from fusionlab.data.scenes.weather import Weather

NEAREST = 1.5  # metres; what stands closer to the camera is left out
Painter = Callable[[Canvas, Plan, Weather], None]
RAYS = 2  # rays a pixel along each side for cars


def paint_scene(canvas: Canvas, plan: Plan, weather: Weather) -> None:
    """Draws everything on the canvas; cars, people and cones own their pixels by number, from 1."""
    figures = []
    for k, person in enumerate(plan.people):
        heat = weather.heat_of(f"person {k}")
        figures.append((person, people.pose(person, heat["skin"], heat["cloth"])))
    paint_sky(canvas, plan, weather)
    paint_horizon(canvas, plan, weather)
    walls = find_walls(canvas, plan)
    paint_ground(canvas, plan, weather, *_casters(plan, figures), feet(canvas, walls))
    paint_walls(canvas, plan, weather, walls)
    painters: list[tuple[float, Painter]] = _tree_painters(canvas, plan, weather)
    painters += [(post.z, partial(_paint_post, post)) for post in plan.posts]
    owned: list[tuple[float, Callable[..., None]]] = []
    owned += [(car.z, partial(_paint_car, car)) for car in plan.cars]
    owned += [(person.z, partial(_paint_person, person, limbs)) for person, limbs in figures]
    owned += [(z, partial(_paint_cone, x, z)) for x, z in plan.cones]
    painters += [(z, partial(paint, owner)) for owner, (z, paint) in enumerate(owned, start=1)]
    for z, paint in sorted(painters, key=lambda item: -item[0]):
        if z > NEAREST:
            paint(canvas, plan, weather)


def _casters(plan: Plan, figures: list[tuple[Person, list[Limb]]]) -> tuple[list[Caster], list[Caster]]:
    """What throws shadow from sun and lamps, and what darkens the ground beneath it."""
    casters, contact = [], []
    for tree in plan.trees:
        cover = partial(objects.crown_cover, tree)
        edge = objects.crown_edge(tree)
        casters.append(Caster(tree.x, tree.z, 1.3 * tree.crown, tree.height, cover, edge))
        spot = _spot(0.9, 0.55) if tree.bush else _spot(0.35, 0.55)
        contact.append(Caster(tree.x, tree.z, 1.6 if tree.bush else 0.8, 0, spot))
    for person, limbs in figures:
        cover = partial(people.silhouette, limbs, person.height, person.build)
        edge = (people.reach(person, limbs), 1.06 * person.height)
        casters.append(Caster(person.x, person.z, 0.6, person.height, cover, edge))
        contact.append(Caster(person.x, person.z, 0.8, 0, _spot(0.26, 0.62)))
    for car in plan.cars:
        contact.append(Caster(car.x, car.z, 3.4, 0, partial(cars.under_car, car)))
        shade = partial(cars.shade_box, car)
        casters.append(Caster(car.x, car.z, 2.4, 1.6, _spot(1, 1), solid=shade))
    return casters, contact


def _spot(radius: float, depth: float) -> Cover:
    """A round dark spot on the ground, where something touches it."""

    def cover(x: Array, z: Array, soft: Array | float) -> Array:
        return depth * np.exp(-(x * x + z * z) / (radius * radius))

    return cover


def _sunlit(plan: Plan, weather: Weather, x: float, y: float, z: float) -> float:
    """Share of the sun that reaches a point past the buildings."""
    if not weather.light.sun.any():
        return 0.0
    return 1.0 - float(building_shade(plan, weather, x, y, z))


def _paint_sprite(
    sprite: Sprite, region: tuple[slice, slice], place: tuple[float, float], y: Array,
    canvas: Canvas, plan: Plan, weather: Weather, owner: int = 0, hidden: bool = False,
) -> None:  # fmt: skip
    """Lights a sprite standing at place (x, z) and lays it on the canvas; y is the height of its pixels.

    A hidden one sends back as much light of each colour as what stands behind it.
    """
    x, z = place
    at, row, column = pixels(sprite.alpha > 0.003)
    if not at.size:
        return
    sunlit = _sunlit(plan, weather, x, 1.2, z)
    flat = sprite.flat()
    up = np.maximum(y[row, 0], 0.05)
    where = (row + region[0].start, column + region[1].start)
    albedo = flat.albedo.take(at, axis=1)
    if hidden:
        light = _tone(_around(canvas.radiance, *where)) * albedo / _tone(albedo)
    else:
        light = irradiance(weather.light.near(x, z), x, up, z, flat.normal.take(at, axis=1), sunlit)
        light *= albedo
    if flat.glow is not None:
        light += flat.glow.take(at, axis=1)
    canvas.paint(where, flat.alpha[at], light, flat.heat[at], z, owner)


def _around(radiance: Array, row: Array, column: Array) -> Array:
    """What planes (3, H, W) hold about pixels, out to 3 % of the height, (3, n)."""
    reach = max(2, round(0.03 * radiance.shape[1]))
    about = np.ones(radiance.shape[1:], bool)
    about[row, column] = False
    box = (
        slice(max(row.min() - reach, 0), row.max() + reach + 1),
        slice(max(column.min() - reach, 0), column.max() + reach + 1),
    )
    return radiance[:, *box][:, about[box]]


def _tone(light: Array) -> Array:
    """What planes (3, n) average to (3, 1) for the eye, that is after a tone curve close to a root."""
    root: Array = np.sqrt(light).mean(1, keepdims=True)
    return root * root


def _tree_painters(canvas: Canvas, plan: Plan, weather: Weather) -> list[tuple[float, Painter]]:
    """What paints the trees in sight, with their depths; they are drawn together beforehand."""
    seen: list[tuple[Tree, tuple[slice, slice]]] = []
    for tree in plan.trees:
        wide = tree.crown * 1.35
        if tree.z > NEAREST:
            region = canvas.window(tree.x - wide, tree.x + wide, 0.0, tree.height * 1.15, tree.z)
            if region is not None:
                seen.append((tree, region))
    spots = [(*canvas.plane(region, tree.x, tree.z), tree.z * canvas.pixel) for tree, region in seen]
    heat = weather.heat
    sprites = objects.draw_trees([tree for tree, _ in seen], spots, heat["leaf"], heat["wood"])
    return [
        (tree.z, partial(_paint_sprite, sprite, region, (tree.x, tree.z), y))
        for sprite, (tree, region), (_, y, _) in zip(sprites, seen, spots)
    ]


def _paint_post(post: Post, canvas: Canvas, plan: Plan, weather: Weather) -> None:
    left, right = min(0.0, post.arm) - 0.6, max(0.0, post.arm) + 0.6
    if post.sign == "panel":
        left, right = -objects.PANEL[0] - 0.1, objects.PANEL[0] + 0.1
    region = canvas.window(post.x + left, post.x + right, 0.0, post.height + 0.5, post.z)
    if region is not None:
        x, y = canvas.plane(region, post.x, post.z)
        lamp = weather.lamp_glow * floats(weather.burns(post.x, post.z))
        sprite = objects.draw_post(post, x, y, post.z * canvas.pixel, weather.heat, lamp)
        _paint_sprite(sprite, region, (post.x, post.z), y, canvas, plan, weather)
        if post.sign == "panel":
            canvas.owner[region][objects.printed(post, x, y)] = plan.owners.index("print 0") + 1


def _paint_person(
    person: Person, limbs: list[Limb], owner: int, canvas: Canvas, plan: Plan, weather: Weather
) -> None:
    wide = min(people.reach(person, limbs), 0.75)
    region = canvas.window(person.x - wide, person.x + wide, 0.0, person.height * 1.06, person.z)
    if region is not None:
        x, y = canvas.plane(region, person.x, person.z)
        sprite = people.draw_person(person, limbs, x, y, person.z * canvas.pixel)
        hidden = person.wear == "leaves"
        _paint_sprite(sprite, region, (person.x, person.z), y, canvas, plan, weather, owner, hidden)


def _paint_cone(x: float, z: float, owner: int, canvas: Canvas, plan: Plan, weather: Weather) -> None:
    region = canvas.window(x - 0.3, x + 0.3, 0.0, 0.8, z)
    if region is not None:
        across, up = canvas.plane(region, x, z)
        sprite = objects.draw_cone(across, up, z * canvas.pixel, 0.95 * weather.heat["walk"])
        _paint_sprite(sprite, region, (x, z), up, canvas, plan, weather, owner)


def _paint_car(car: Car, owner: int, canvas: Canvas, plan: Plan, weather: Weather) -> None:
    corners = cars.outline(car)
    z = np.maximum(corners[:, 2], 0.8)
    across, up = corners[:, 0] / z, (corners[:, 1] - canvas.camera.height) / z + canvas.camera.height
    region = canvas.window(across.min(), across.max(), up.min(), up.max(), 1.0)
    if region is None:
        return
    hit = cars.meet(car, canvas, region, RAYS)
    if not hit.row.size:
        return
    albedo, glow, gloss, heat = cars.surface(
        car, hit, weather.heat_of(plan.owners[owner - 1]), weather.lamps_on
    )
    y = hit.point[1]
    sunlit = _sunlit(plan, weather, car.x, 1.0, car.z)
    light = irradiance(weather.light.near(car.x, car.z), car.x, y, car.z, hit.normal, sunlit)
    radiance = albedo * light * (0.55 + 0.45 * np.clip(y / 0.8, 0, 1)) + glow
    radiance = radiance + gloss * cars.reflection(hit, canvas.camera, weather.zenith, weather.skyline)

    shape = (region[0].stop - region[0].start, region[1].stop - region[1].start)
    cell = hit.row // RAYS * shape[1] + hit.column // RAYS
    count = np.bincount(cell, minlength=shape[0] * shape[1])
    at = np.flatnonzero(count)
    rays = count[at]

    def mean(values: Array) -> Array:
        return floats(np.bincount(cell, values, len(count))[at] / rays)

    colour = np.array([mean(band) for band in radiance])
    place = (at // shape[1] + region[0].start, at % shape[1] + region[1].start)
    alpha, depth = floats(rays / RAYS**2), np.maximum(mean(hit.depth), 1.0)
    canvas.paint(place, alpha, colour, mean(heat), depth, owner)
    if car.driver:
        mine = (mean(cars.driver_at(car, hit)) >= 0.5) & (alpha >= 0.5)
        canvas.owner[place[0][mine], place[1][mine]] = plan.owners.index("driver 0") + 1
