import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fusionlab import lab

ALT = "A dark square on a grey ground"


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would store: (data, metadata) of each display, in order."""
    import IPython.display

    bundles = []
    monkeypatch.setattr(IPython.display, "display", lambda thing: bundles.append(thing._repr_mimebundle_()))
    return bundles


def pixels(bundle):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle[0]["image/png"]))).convert("RGB"))


def test_all_image_layouts_are_drawn_and_grey_is_not_stretched():
    grey = torch.full((1, 1, 8, 10), 0.4)
    colour = torch.rand(1, 3, 8, 10)
    figure = lab.grid([grey, colour, grey[0, 0].numpy(), colour[0].permute(1, 2, 0)], list("abcd"), rows=2)
    drawn = [axes.images[0] for axes in figure.axes]
    assert [image.get_array().shape for image in drawn] == [(8, 10), (8, 10, 3), (8, 10), (8, 10, 3)]
    assert {image.get_clim() for image in drawn} == {(0.0, 1.0)}
    assert np.allclose(drawn[1].get_array(), drawn[3].get_array())
    assert [axes.get_title() for axes in figure.axes] == list("abcd")
    assert figure.dpi == 100


def test_a_flat_grey_image_shows_its_own_grey(shown):
    lab.show(lab.grid([torch.full((1, 1, 64, 64), 0.4)]), ALT)
    image = pixels(shown[0])
    assert tuple(image[image.shape[0] // 2, image.shape[1] // 2]) == (102, 102, 102)


def test_a_white_image_has_an_end(shown):
    lab.show(lab.grid([torch.ones(1, 1, 64, 64)]), ALT)
    image = pixels(shown[0])
    assert (image[image.shape[0] // 2, image.shape[1] // 2] == 255).all()
    left, right = np.array_split(image[image.shape[0] // 2, :, 0], 2)
    assert left.min() < 240 and right.min() < 240


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 2, 8, 8), (8, 8, 2), (8,)])
def test_a_batch_or_an_odd_shape_is_refused(shape):
    with pytest.raises(ValueError, match="cannot draw"):
        lab.grid([torch.zeros(shape)])
    with pytest.raises(ValueError, match="1 images but 2 titles"):
        lab.grid([torch.zeros(8, 8)], ["a", "b"])


def test_alt_text_is_stored_in_the_output_and_in_the_file(shown, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_RUN", str(tmp_path))
    lab.show(lab.grid([torch.zeros(8, 8)]), ALT, "square")
    data, metadata = shown[0]
    assert metadata == {"image/png": {"alt": ALT}}
    kept = tmp_path / "figures" / "square.png"
    assert kept.read_bytes() == base64.b64decode(data["image/png"])
    assert Image.open(kept).info["Description"] == ALT
    with pytest.raises(ValueError, match="20 characters"):
        lab.show(lab.grid([torch.zeros(8, 8)]), "a square")


def test_no_figure_stays_open_in_pyplot(shown):
    import matplotlib.pyplot as plt

    plt.close("all")
    lab.show(lab.grid([torch.zeros(8, 8)]), ALT)
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    lab.show(figure, ALT)
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes(shown):
    for _ in range(2):
        lab.show(lab.grid([torch.eye(8)], ["eye"]), ALT)
    assert shown[0] == shown[1]


def test_a_printed_number_keeps_the_papers_digits_and_stays_a_number(shown):
    printed = lab.printed("mmdrfuse", "table1", "LLVIP", "III After dynamic refresh")["Qabf"]
    lab.table([{"printed": printed, "half of it": printed / 2}], "a caption")
    assert shown[0][0]["text/markdown"].endswith("| 0.70 | 0.3500 |")
    assert printed == 0.7 and f"{printed:.1f}" == "0.7"


def test_a_table_has_four_digits_and_dashes(shown):
    rows = [
        {"method": "average", "EN": 6.123456, "images": 40},
        {"method": "a|b", "EN": torch.tensor(0.5), "MACs": 123456.7},
        {"method": "none", "EN": None, "MACs": np.float32(1e-5)},
    ]
    lab.table(rows, "Entropy on scenes")
    assert shown[0][0]["text/markdown"].splitlines() == [
        "Entropy on scenes",
        "",
        "| method | EN | images | MACs |",
        "| --- | --- | --- | --- |",
        "| average | 6.123 | 40 | — |",
        "| a\\|b | 0.5000 | — | 123457 |",
        "| none | — | — | 1.000e-05 |",
    ]


def test_a_panel_is_drawn_headless_at_its_defaults_and_again_on_each_move(monkeypatch):
    import IPython.display

    calls, shown = [], []
    monkeypatch.setattr(IPython.display, "display", shown.append)

    def panel(sigma=0.5, steps=3, kind="heun", bare=1):
        calls.append((sigma, steps, kind))
        return lab.grid([torch.full((4, 4), sigma / 2)])

    lab.move(panel, sigma=(0.0, 2.0, 0.25), steps=(1, 9), kind=["euler", "heun"])
    assert calls == [(0.5, 3, "heun")]
    sigma, steps, _, picture = shown[0].children
    assert sigma.continuous_update is False
    assert (sigma.min, sigma.max, sigma.step) == (0.0, 2.0, 0.25)
    assert isinstance(steps.value, int)
    before = picture.value
    sigma.value = 2.0
    assert calls == [(0.5, 3, "heun"), (2.0, 3, "heun")]
    assert picture.value[:4] == b"\x89PNG"
    assert picture.value != before


def test_a_panel_that_fails_fails_its_cell():
    def panel(sigma):
        raise ZeroDivisionError(sigma)

    with pytest.raises(ZeroDivisionError):
        lab.move(panel, sigma=(0.0, 1.0))
    with pytest.raises(ValueError, match="sigma: a control is"):
        lab.move(panel, sigma=0.5)
