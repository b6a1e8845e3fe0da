"""Things that one camera alone can see, put into a street by construction."""

import math
from dataclasses import replace

import numpy as np

from fusionlab.scenes.plan import Car, Person, Plan, Post, Tree

GREEN = (0.062, 0.092, 0.022)  # of leaves in the middle of their range
FACING = -math.pi / 2  # heading of a car that comes towards the camera
# Takes the part in a street where nobody is about.
STAND_IN = Person(
    0.0, 10.0, 1.75, 1.0, side=False, back=False, facing=1.0, stride=0.1, coat=(0.09, 0.09, 0.10),
    trousers=(0.04, 0.05, 0.08), skin=(0.36, 0.24, 0.18), hair=(0.03, 0.022, 0.018), wear="plain", salt=1,
)  # fmt: skip


def stage(plan: Plan, case: str | None) -> Plan:
    """The plan with one of settings.CASES in it, and with nothing in front of it; None changes nothing.

    The first person or car of the returned plan is that of the case.
    "camouflage": someone warm before a hedge, in a suit that sends back as much light as its leaves.
    "sign": a panel whose print is paint, of one temperature with its ground; the print is "print 0".
    "windscreen": a driver behind glass, which infrared does not pass; the driver is "driver 0".
    "parked car": engine off, lights off, bonnet and wheels still warm.
    "glare": someone under a lamp beside the full beam of a car, lost in what the lens scatters.
    """
    if case is None:
        return plan
    if case == "camouflage":
        return _camouflage(plan)
    if case == "glare":
        return _glare(plan)
    if case == "sign":
        x, z = _verge(plan, 9.0)
        plan = _clear(plan, x, z + 4)
        return replace(plan, posts=(*plan.posts, Post(x, z, 3.5, 0.0, "panel", plan.salt)))
    if case == "windscreen":
        car = Car(0.3, 9.2, FACING + 0.1, (0.55, 0.56, 0.57), "bus", running=True, driver=True)
    else:
        car = Car(0.3, 10.0, FACING + 0.5, (0.30, 0.31, 0.33), "sedan", running=False, bonnet=0.9)
    plan = _clear(plan, car.x, car.z + 2.5)
    return replace(plan, cars=(car, *plan.cars))


def _camouflage(plan: Plan) -> Plan:
    x, z = _verge(plan, 7.0)
    person, plan = _cast(plan, x, z)
    plan = _clear(plan, x, z + 1.7)
    person = replace(person, wear="leaves", coat=GREEN)
    hedge = tuple(  # tall bushes, and before them lower ones, so that no street shows through
        Tree(x + 0.28 * k, z + deep + (0.05 * k) % 0.2, tall, crown, 0.4, plan.salt + 9 * k + 54, bush=True)
        for deep, tall, crown in ((0.6, 3.4, 0.8), (0.45, 2.4, 0.6), (0.3, 1.5, 0.6))
        for k in range(-6, 7)
    )
    cars = tuple(c for c in plan.cars if math.hypot(c.x - x, c.z - z - 0.6) > 5)
    return replace(plan, people=(person, *plan.people), cars=cars, trees=plan.trees + hedge)


def _glare(plan: Plan) -> Plan:
    person, plan = _cast(plan, 1.35, 13.2)
    person = replace(person, coat=(0.45, 0.45, 0.45))
    plan = _clear(_clear(plan, 0.9, 14.0), 0.0, 15.5)
    lamp = Post(2.6, 12.6, 6.0, -0.6, salt=plan.salt)
    car = Car(0.0, 13.0, FACING, (0.10, 0.11, 0.12), "sedan", running=True, full_beam=True)
    return replace(plan, people=(person, *plan.people), posts=(*plan.posts, lamp), cars=(car, *plan.cars))


def _cast(plan: Plan, x: float, z: float) -> tuple[Person, Plan]:
    """The first person of the plan, or a stand-in, standing at (x, z), and the plan without that person."""
    person = plan.people[0] if plan.people else STAND_IN
    person = replace(person, x=x, z=z, stride=0.1, side=False, height=1.75)
    return person, replace(plan, people=plan.people[1:])


def _verge(plan: Plan, near: float) -> tuple[float, float]:
    """The nearest place (x, z) beside the road, `near` metres away or more, well inside the picture."""
    street, camera = plan.street, plan.camera
    near = max(near, camera.height * camera.focal / (1 - camera.horizon))  # whose ground is in the picture
    kerbs = (-street.half - 1.2, street.half + 1.2)
    spots = [street.to_camera(float(s), w) for w in kerbs for s in np.arange(-6, 45, 0.5)]
    return min(((x, z) for x, z in spots if z > near and abs(x) < 0.34 * z), key=lambda spot: spot[1])


def _clear(plan: Plan, x: float, z: float) -> Plan:
    """The plan without what stands in the way: nearer than z, and within 3 m of the line to (x, z)."""

    def aside(a: float, b: float) -> bool:
        return b > z or abs(a - x * b / z) > 3

    return replace(
        plan,
        trees=tuple(t for t in plan.trees if aside(t.x, t.z)),
        posts=tuple(p for p in plan.posts if aside(p.x, p.z)),
        cars=tuple(c for c in plan.cars if aside(c.x, c.z - 2)),
        people=tuple(p for p in plan.people if aside(p.x, p.z)),
        cones=tuple(c for c in plan.cones if aside(*c)),
    )
