from fusionlab.data import read_image
from fusionlab.tools.contact_sheet import SHEET, contact_sheet


def test_the_contact_sheet_shows_every_row_under_its_label(tmp_path):
    contact_sheet(tmp_path / "sheet.png", 36, 48)
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (1, 3, len(SHEET) * (36 + 18), 6 * 48)
    strips = sheet.reshape(3, len(SHEET), 54, 6 * 48)[:, :, :18]
    written = [strip.flatten() for strip in strips.unbind(1)]
    assert all(0.4 < strip.mean() < 1 for strip in written)
    assert len({tuple(strip.tolist()) for strip in written}) == len(SHEET)
