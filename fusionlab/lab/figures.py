"""Pictures and tables of the notebooks: fixed grey limits, alt text always, no pyplot state."""

import base64
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusionlab.bench.results import Printed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
ALT_LENGTH = 20


def grid(
    images: Sequence[Any],
    titles: Sequence[str] = (),
    rows: int = 1,
    width: float = 2.6,
    limits: tuple[float, float] = (0.0, 1.0),
    cmap: str = "gray",
) -> "Figure":
    """A figure of images side by side, each `width` inches wide.

    Images are tensors or arrays (1, 1, H, W), (1, 3, H, W), (H, W) or (H, W, 3); one-channel images are
    drawn between `limits`, never stretched to their own range. A thin grey frame ends each picture. Raises
    ValueError for another shape.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    pixels = [_pixels(image) for image in images]
    if titles and len(titles) != len(pixels):
        raise ValueError(f"{len(pixels)} images but {len(titles)} titles")
    columns = -(-len(pixels) // rows)
    aspect = max(image.shape[0] / image.shape[1] for image in pixels)
    height = width * aspect + (0.27 if titles else 0.0)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout=layout)
    for position, image in enumerate(pixels):
        axes = figure.add_subplot(rows, columns, position + 1)
        axes.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)  # a white picture must not vanish on a white page
        if titles:
            axes.set_title(titles[position], fontsize=9)
    return figure


def show(figure: "Figure", alt: str, name: str | None = None) -> None:
    """Displays a figure as PNG with alt text and closes it.

    The alt text stands in the output's metadata and in the PNG's Description. With `name` and a run folder
    (FUSIONLAB_RUN) the picture is kept as `<run>/figures/<name>.png`. Raises ValueError for alt text of less
    than 20 characters.
    """
    from IPython.display import display

    if len(alt.strip()) < ALT_LENGTH:
        raise ValueError(
            f"alt text says what the picture shows, in {ALT_LENGTH} characters or more; got {alt!r}"
        )
    png = _png(figure, alt)
    run = os.environ.get("FUSIONLAB_RUN")
    if name is not None and run:
        folder = Path(run) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png)
    display(_picture(png, alt))


def move(panel: Callable[..., "Figure"], **controls: Any) -> None:
    """Draws `panel(**values)` anew at each move of its controls.

    A control is (low, high) or (low, high, step) for a slider, or a list for a menu. It starts at the panel's
    own default, else in the middle. A panel that fails at its first drawing fails the cell.
    """
    from IPython.display import display
    from ipywidgets import Image, VBox

    defaults = {
        key: p.default for key, p in inspect.signature(panel).parameters.items() if p.default is not p.empty
    }
    knobs = {key: _control(key, control, defaults) for key, control in controls.items()}
    # An Image, not `interact`: its Output widget makes a headless client wait for ever now and then.
    picture = Image(format="png")

    def draw(_: Any = None) -> None:
        values = {key: knob.value for key, knob in knobs.items()}
        picture.value = _png(panel(**values), panel.__name__)

    for knob in knobs.values():
        knob.observe(draw, names="value")
    draw()
    display(VBox([*knobs.values(), picture]))


def table(rows: Sequence[Mapping[str, Any]], caption: str) -> None:
    """Displays rows as a Markdown table under a caption; floats with 4 significant digits, None as a dash.

    What a paper prints keeps its own digits.
    """
    from IPython.display import display

    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(key)) for key in columns] for row in rows)]
    text = f"{caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
    display(_Shown({"text/markdown": text}, {}, text))


@dataclass(frozen=True)
class _Shown:
    """What IPython displays by its MIME bundle and a plain interpreter by its text."""

    data: dict[str, str]
    metadata: dict[str, dict[str, str]]
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        return self.data, self.metadata


def _picture(png: bytes, alt: str) -> _Shown:
    return _Shown({"image/png": base64.b64encode(png).decode()}, {"image/png": {"alt": alt}}, alt)


def _png(figure: "Figure", alt: str) -> bytes:
    """PNG bytes that depend on the picture and its alt text alone; a pyplot figure is closed.

    A picture without colour is stored with one channel: half the bytes of a notebook, the same pixels.
    """
    from PIL import Image, PngImagePlugin

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi="figure")
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
    picture = Image.open(drawn).convert("RGB")
    red, green, blue = picture.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        picture = red
    description = PngImagePlugin.PngInfo()
    description.add_itxt("Description", alt)
    stored = io.BytesIO()
    picture.save(stored, format="PNG", optimize=True, pnginfo=description, dpi=(DPI, DPI))
    return stored.getvalue()


def _pixels(image: Any) -> np.ndarray:
    """(H, W) or (H, W, 3) from any of the four layouts."""
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 4 and array.shape[0] == 1 and array.shape[1] in (1, 3):
        array = array[0, 0] if array.shape[1] == 1 else array[0].transpose(1, 2, 0)
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"cannot draw an image of shape {array.shape}; give (1, 1, H, W), (1, 3, H, W) or (H, W[, 3])"
        )
    return array if array.dtype == np.uint8 else array.clip(0.0, 1.0)


def _control(name: str, control: Any, defaults: Mapping[str, Any]) -> Any:
    import ipywidgets

    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, value=defaults.get(name, control[0]), description=name)
    if not isinstance(control, tuple) or len(control) not in (2, 3):
        raise ValueError(f"{name}: a control is (low, high), (low, high, step) or a list, not {control!r}")
    whole = all(isinstance(number, int) for number in control)
    low, high = control[:2]
    step = control[2] if len(control) == 3 else (1 if whole else (high - low) / 100)
    value = defaults.get(name, (low + high) // 2 if whole else (low + high) / 2)
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return slider(value=value, min=low, max=high, step=step, description=name, continuous_update=False)


def _cell(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    if value is None:
        return "—"
    if isinstance(value, Printed):
        return value.digits
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:#.4g}".removesuffix(".")
    return str(value).replace("|", "\\|")
