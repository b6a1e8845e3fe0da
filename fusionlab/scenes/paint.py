"""Paints a plan under a weather: the street first, then what stands on it, far to near."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fusionlab.scenes import cars, objects, people
from fusionlab.scenes.buildings import paint_walls
from fusionlab.scenes.canvas import Canvas, Sprite
from fusionlab.scenes.light import Caster, Cover, add_lamps, daylight, irradiance
from fusionlab.scenes.people import Limb
from fusionlab.scenes.plan import Car, Person, Plan, Post, Tree
from fusionlab.scenes.street import building_shade, paint_ground, paint_horizon, paint_sky
from fusionlab.scenes.textures import Array, floats, pixels
from fusionlab.scenes.walls import feet, find_walls
from fusionlab.scenes.weather import Weather

NEAREST = 1.5  # metres; what stands closer to the camera is left out
Painter = Callable[[], None]
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
    first = 1 + len(plan.cars)
    things = _trees(canvas, plan, weather)
    things += [_post(canvas, post, weather) for post in plan.posts]
    things += [_person(canvas, *figure, owner) for owner, figure in enumerate(figures, first)]
    first += len(figures)
    things += [_cone(canvas, *place, weather, owner) for owner, place in enumerate(plan.cones, first)]
    painters = _light_up(canvas, plan, weather, [thing for thing in things if thing is not None])
    panels = [post for post in plan.posts if post.sign == "panel"]
    painters += [(post.z, partial(_mark_print, canvas, plan, post)) for post in panels]
    for owner, car in enumerate(plan.cars, start=1):
        if car.z > NEAREST:
            painters.append((car.z, partial(_paint_car, car, owner, canvas, plan, weather)))
    for _, paint in sorted(painters, key=lambda item: -item[0]):
        paint()


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


@dataclass(frozen=True)
class Thing:
    """A sprite that stands at a place (x, z), seen in a region; y (h, w) is the height of its pixels.

    A hidden one sends back as much light of each colour as what is painted beside it.
    """

    sprite: Sprite
    region: tuple[slice, slice]
    place: tuple[float, float]
    y: Array
    owner: int = 0
    hidden: bool = False


def _light_up(
    canvas: Canvas, plan: Plan, weather: Weather, things: list[Thing]
) -> list[tuple[float, Painter]]:
    """What paints the things, with their depths; daylight falls on all at once, lamplight on one by one."""
    seen = [(thing, *pixels(thing.sprite.alpha > 0.003)) for thing in things]
    seen = [item for item in seen if item[1].size]
    if not seen:
        return []
    flats = [(thing.sprite.flat(), at) for thing, at, _, _ in seen]
    normal = np.concatenate([flat.normal.take(at, axis=1) for flat, at in flats], axis=1)
    counts = [at.size for _, at in flats]
    sunlit = floats([_sunlit(plan, weather, thing.place[0], 1.2, thing.place[1]) for thing, *_ in seen])
    light = daylight(weather.light, normal, sunlit.repeat(counts))
    painters: list[tuple[float, Painter]] = []
    ends = np.cumsum([0, *counts])
    for (thing, at, row, column), (flat, _), start, end in zip(seen, flats, ends, ends[1:]):
        own, (x, z) = light[:, start:end], thing.place
        up = np.maximum(thing.y[row, 0], 0.05)
        add_lamps(own, weather.light.near(x, z), x, up, z, normal[:, start:end])
        own *= flat.albedo.take(at, axis=1)
        if flat.glow is not None:
            own += flat.glow.take(at, axis=1)
        where = (row + thing.region[0].start, column + thing.region[1].start)
        paint = canvas.paint
        if thing.hidden:
            own, paint = flat.albedo.take(at, axis=1), partial(_paint_hidden, canvas)
        painters.append((z, partial(paint, where, flat.alpha[at], own, flat.heat[at], z, thing.owner)))
    return painters


def _paint_hidden(
    canvas: Canvas, where: tuple[Array, Array], alpha: Array, albedo: Array, heat: Array, z: float, owner: int
) -> None:
    """Paints pixels at rows and columns as bright as what is already painted beside them."""
    light = _tone(_around(canvas.radiance, *where)) * albedo / _tone(albedo)
    canvas.paint(where, alpha, light, heat, z, owner)


def _around(radiance: Array, row: Array, column: Array) -> Array:
    """What planes (3, H, W) hold beside pixels, out to 3 % of the height as Truth.both looks, (3, n)."""
    reach = max(2, round(0.03 * radiance.shape[1]))
    beside = np.ones(radiance.shape[1:], bool)
    beside[row, column] = False
    box = (
        slice(max(row.min() - reach, 0), row.max() + reach + 1),
        slice(max(column.min() - reach, 0), column.max() + reach + 1),
    )
    return radiance[:, *box][:, beside[box]]


def _tone(light: Array) -> Array:
    """What planes (3, n) average to (3, 1) for the eye, that is after a tone curve close to a root."""
    root: Array = np.sqrt(light).mean(1, keepdims=True)
    return root * root


def _trees(canvas: Canvas, plan: Plan, weather: Weather) -> list[Thing | None]:
    """The trees in sight, drawn together."""
    seen: list[tuple[Tree, tuple[slice, slice]]] = []
    for tree in plan.trees:
        wide = tree.crown * 1.35
        region = _window(canvas, tree.x, tree.z, -wide, wide, tree.height * 1.15)
        if region is not None:
            seen.append((tree, region))
    spots = [(*canvas.plane(region, tree.x, tree.z), tree.z * canvas.pixel) for tree, region in seen]
    heat = weather.heat
    sprites = objects.draw_trees([tree for tree, _ in seen], spots, heat["leaf"], heat["wood"])
    return [
        Thing(sprite, region, (tree.x, tree.z), y)
        for sprite, (tree, region), (_, y, _) in zip(sprites, seen, spots)
    ]


def _post(canvas: Canvas, post: Post, weather: Weather) -> Thing | None:
    left, right = min(0.0, post.arm) - 0.6, max(0.0, post.arm) + 0.6
    if post.sign == "panel":
        left, right = -objects.PANEL[0] - 0.1, objects.PANEL[0] + 0.1
    region = _window(canvas, post.x, post.z, left, right, post.height + 0.5)
    if region is None:
        return None
    x, y = canvas.plane(region, post.x, post.z)
    lamp = weather.lamp_glow * floats(weather.burns(post.x, post.z))
    sprite = objects.draw_post(post, x, y, post.z * canvas.pixel, weather.heat, lamp)
    return Thing(sprite, region, (post.x, post.z), y)


def _mark_print(canvas: Canvas, plan: Plan, post: Post) -> None:
    """Gives what is printed on a panel its owner."""
    region = _window(canvas, post.x, post.z, -objects.PANEL[0], objects.PANEL[0], post.height)
    if region is not None:
        inked = objects.print_mask(post, *canvas.plane(region, post.x, post.z))
        canvas.owner[region][inked] = plan.owners.index("print 0") + 1


def _person(canvas: Canvas, person: Person, limbs: list[Limb], owner: int) -> Thing | None:
    wide = min(people.reach(person, limbs), 0.75)
    region = _window(canvas, person.x, person.z, -wide, wide, person.height * 1.06)
    if region is None:
        return None
    x, y = canvas.plane(region, person.x, person.z)
    sprite = people.draw_person(person, limbs, x, y, person.z * canvas.pixel)
    return Thing(sprite, region, (person.x, person.z), y, owner, hidden=person.wear == "leaves")


def _cone(canvas: Canvas, x: float, z: float, weather: Weather, owner: int) -> Thing | None:
    region = _window(canvas, x, z, -0.3, 0.3, 0.8)
    if region is None:
        return None
    across, up = canvas.plane(region, x, z)
    sprite = objects.draw_cone(across, up, z * canvas.pixel, 0.95 * weather.heat["walk"])
    return Thing(sprite, region, (x, z), up, owner)


def _window(
    canvas: Canvas, x: float, z: float, left: float, right: float, top: float
) -> tuple[slice, slice] | None:
    """The window of what stands at (x, z), None where it is out of sight or too near."""
    return canvas.window(x + left, x + right, 0.0, top, z) if z > NEAREST else None


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
