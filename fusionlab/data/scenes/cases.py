"""Things that one camera alone can see, put into the middle of a street by construction."""

import math
from dataclasses import replace

from fusionlab.data.scenes.plan import Car, Person, Plan, Post, Tree

GREEN = (0.062, 0.092, 0.022)  # of leaves in the middle of their range
FACING = -math.pi / 2  # heading of a car that comes towards the camera


def stage(plan: Plan, case: str | None) -> Plan:
    """The plan with one of settings.CASES in it, and with nothing in front of it; None changes nothing.

    The first person or car of the returned plan is that of the case.
    "camouflage": someone clad in leaves before a bush, warm; the visible camera sees leaves.
    "sign": a board whose lettering is paint, of one temperature with its ground.
    "windscreen": a driver behind glass, which infrared does not pass.
    "parked car": engine off, lights off, bonnet and wheels still warm.
    "glare": someone under a lamp beside the full beam of a car, lost in what the lens scatters.
    """
    if case is None:
        return plan
    if case == "camouflage":
        plan = _clear(plan, 0.0, 10.2)
        person = replace(
            _person(plan, 0.0, 8.5),
            side=False,
            coat=GREEN,
            trousers=GREEN,
            skin=GREEN,
            hair=GREEN,
            wear="leaves",
        )
        bushes = tuple(
            Tree(x, 9.1 + 0.1 * k, 2.8, 1.5, 0.4, plan.salt + k, bush=True)
            for k, x in enumerate((-1.6, -0.5, 0.5, 1.6))
        )
        low = tuple(
            Tree(x, 8.0 + 0.05 * k, 0.8, 0.7, 0.4, plan.salt + 9 + k, bush=True)
            for k, x in enumerate((-0.7, 0.0, 0.7))
        )
        return replace(plan, people=(person, *plan.people), trees=plan.trees + bushes + low)
    if case == "sign":
        plan = _clear(plan, 0.6, 6.5)
        return replace(plan, posts=(*plan.posts, Post(0.6, 6.5, 2.5, 0.0, "board", plan.salt)))
    if case == "windscreen":
        car = Car(0.3, 8.0, FACING + 0.1, (0.55, 0.56, 0.57), "hatch", running=True, driver=True)
    elif case == "parked car":
        car = Car(0.3, 10.0, FACING + 0.5, (0.30, 0.31, 0.33), "sedan", running=False, bonnet=0.9)
    else:
        plan = _clear(plan, 0.9, 14.0)
        person = replace(_person(plan, 1.35, 13.2), coat=(0.45, 0.45, 0.45))
        lamp = Post(2.6, 12.6, 6.0, -0.6, salt=plan.salt)
        plan = replace(plan, people=(person, *plan.people), posts=(*plan.posts, lamp))
        car = Car(0.0, 13.0, FACING, (0.10, 0.11, 0.12), "sedan", running=True, full_beam=True)
    plan = _clear(plan, car.x, car.z + 2.5, keep=plan.people[:1] if case == "glare" else ())
    return replace(plan, cars=(car, *plan.cars))


def _person(plan: Plan, x: float, z: float) -> Person:
    """The first person of the plan in another place, standing."""
    return replace(plan.people[0], x=x, z=z, stride=0.1, side=False, height=1.75)


def _clear(plan: Plan, x: float, z: float, keep: tuple[Person, ...] = ()) -> Plan:
    """The plan without what stands in the way: nearer than z, and within 3 m of the line to (x, z)."""

    def aside(a: float, b: float) -> bool:
        return b > z or abs(a - x * b / z) > 3

    return replace(
        plan,
        trees=tuple(t for t in plan.trees if aside(t.x, t.z)),
        posts=tuple(p for p in plan.posts if aside(p.x, p.z)),
        cars=tuple(c for c in plan.cars if aside(c.x, c.z - 2)),
        people=keep + tuple(p for p in plan.people if aside(p.x, p.z) and p not in keep),
        cones=tuple(c for c in plan.cones if aside(*c)),
    )
