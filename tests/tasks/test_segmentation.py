"""Segmentation: sizes, loss and scores against closed forms and scikit-learn; scenes and folders as data."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score

from fusionlab.crops import Labelled
from fusionlab.data import open_pairs
from fusionlab.errors import UserError
from fusionlab.scenes import Settings, open_scenes
from fusionlab.tasks.segmentation import (
    LETTERS,
    MFNET,
    NARROW,
    WIDE,
    Segmenter,
    confusion,
    halved,
    iou,
    keep_classes,
    letters,
    of_scenes,
    read_mfnet,
    read_msrs,
    recall,
    said_of,
    segmentation_loss,
    squares,
    stacked,
)

CAR, PERSON = MFNET.index("car"), MFNET.index("person")


@pytest.mark.parametrize(("widths", "parameters"), [(NARROW, 210_921), (WIDE, 329_169)])
def test_the_networks_have_the_sizes_of_the_facts_and_take_odd_ones(widths, parameters):
    network = Segmenter(widths=widths)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert network(torch.rand(2, 1, 21, 34)).shape == (2, 9, 21, 34)


def test_scores_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels, said = torch.randint(4, (2, 3, 9, 11), generator=generator)
    labels[labels == 3] = 0  # a class that is said and does not occur
    counts = confusion(said, labels, 5)  # and one that is neither
    y, z = labels.flatten().numpy(), said.flatten().numpy()
    assert np.array_equal(counts.numpy(), confusion_matrix(y, z, labels=range(5)))
    assert counts[0, 1] != counts[1, 0]
    jaccard = jaccard_score(y, z, labels=range(4), average=None)
    assert iou(counts)[:4].tolist() == pytest.approx(jaccard.tolist(), rel=1e-12)
    assert recall(counts)[:3].tolist() == pytest.approx(
        recall_score(y, z, labels=range(3), average=None).tolist(), rel=1e-12
    )
    assert iou(counts)[3] == 0 and math.isnan(recall(counts)[3]) and math.isnan(iou(counts)[4])


def test_the_loss_weighs_classes_by_the_root_of_their_rarity():
    """16 pixels of class 0, 4 of class 1: 1/4 to 1/2, scaled by 20/6, so 5/6 and 5/3; class 2 is absent."""
    labels = torch.tensor([0] * 16 + [1] * 4).view(1, 4, 5)
    loss = segmentation_loss(labels, 3)
    assert loss.keywords["weight"].tolist() == pytest.approx([5 / 6, 5 / 3, 0])
    scores = torch.zeros(1, 3, 4, 5)
    assert loss(scores, labels).item() == pytest.approx(math.log(3))
    scores[:, 0] = 1  # all for class 0
    right, wrong = 1 - math.log(math.e + 2), -math.log(math.e + 2)
    assert loss(scores, labels).item() == pytest.approx(-(16 * 5 / 6 * right + 4 * 5 / 3 * wrong) / 20)


def test_a_network_learns_labels_from_images_but_not_from_shuffled_ones():
    torch.manual_seed(0)
    images = torch.rand(8, 1, 16, 16)
    images = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(images, (1, 1, 1, 1)), 3, 1)
    labels = (images > images.median()).long()[:, 0]
    found = {}
    for name, order in (("own", torch.arange(8)), ("others'", torch.arange(8).roll(1))):
        network, wanted = Segmenter(2, (4, 4, 4, 4)), labels[order]
        loss, optimiser = segmentation_loss(wanted, 2), torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            loss(network(images), wanted).backward()
            optimiser.step()
        found[name] = iou(confusion(said_of(network, images), labels, 2)).mean().item()
    assert found["own"] > 0.8 > 0.6 > found["others'"]


def test_scenes_come_at_half_their_sides_with_chosen_classes():
    pairs = open_pairs("scenes", 2, split="train", size=(96, 128))
    first, second = of_scenes(pairs)
    assert first.ir.shape == (1, 1, 48, 64) and first.labels.shape == (1, 48, 64)
    pair = pairs[0]
    assert first.vi[0, 0, 3, 5].item() == pytest.approx(pair.vi[0, 0, 6:8, 10:12].mean().item(), abs=1e-6)
    assert first.labels[0, 3, 5] == pair.truth.labels[6, 10]
    both = keep_classes(stacked([first, second]), (PERSON, CAR))
    assert both.ir.shape[0] == 2 and set(both.labels.unique().tolist()) == {0, 1, 2}
    assert torch.equal(both.labels[0] == 1, first.labels[0] == PERSON)
    assert set(keep_classes(first, (PERSON,)).labels.unique().tolist()) == {0, 1}
    assert halved(Labelled(*(torch.ones(1, 1, 5, 7),) * 2, torch.ones(1, 5, 7))).labels.shape == (1, 2, 3)
    with pytest.raises(UserError, match="has no labels"):
        next(of_scenes([pair.__class__("mine", pair.ir, pair.vi)]))


def test_the_letters_of_a_sign_are_seen_by_the_visible_camera_alone():
    """Pixels of the print part in bright and dark; in infrared both are alike."""
    pairs = open_scenes(3, 0, "train", settings=Settings(case="sign"))
    for pair, seen in zip(pairs, of_scenes(pairs, signs=True)):
        ink = letters(pair.truth)
        board = (pair.truth.owner == pair.truth.owner.max()) & (pair.truth.labels == 0)
        assert 0.1 < ink.sum() / board.sum() < 0.6 and not (ink & ~board).any()
        contrast = {}
        for role in ("vi", "ir"):
            image = getattr(pair, role)[0, 0]
            contrast[role] = (image[ink].mean() - image[board & ~ink].mean()).abs().item()
        assert contrast["vi"] > 0.05 > 5 * contrast["ir"], contrast
        assert torch.equal(seen.labels[0] == LETTERS, ink[::2, ::2])


def test_squares_hold_what_is_labelled_wherever_it_is():
    """One pixel of class 2 in a corner and a field of class 1: each is met in about half the squares."""
    place = torch.arange(40 * 50.0).view(1, 1, 40, 50)
    labels = torch.zeros(1, 40, 50, dtype=torch.long)
    labels[0, 0, 49], labels[0, 20:40, :25] = 2, 1
    cut = squares([Labelled(place, -place, labels)], 8, 60, seed=0)
    assert cut.ir.shape == (60, 1, 8, 8) and torch.equal(cut.vi, -cut.ir)
    assert ((cut.labels > 0).flatten(1).any(1)).all()
    assert 15 < (cut.labels == 2).flatten(1).any(1).sum() < 45
    corners = cut.ir[:, 0, 0, 0].long()  # the labels are those of the pixels
    assert torch.equal(cut.labels[7, 2, 3], labels[0, corners[7] // 50 + 2, corners[7] % 50 + 3])
    assert len(corners.unique()) > 20
    again = squares([Labelled(place, -place, labels)], 8, 60, seed=0)
    assert torch.equal(again.ir, cut.ir)
    anywhere = squares([Labelled(place, place, torch.zeros_like(labels))], 8, 4, seed=0)
    assert len(anywhere.labels) == 4
    with pytest.raises(UserError, match="no square of 64 pixels fits"):
        squares([Labelled(place, place, labels)], 64, 1, seed=0)


def test_folders_of_mfnet_and_msrs_are_read_alike(tmp_path):
    """The same three images in both layouts, one of them not of the split."""
    generator = np.random.default_rng(0)
    mfnet, msrs = tmp_path / "mfnet", tmp_path / "msrs"
    for path in (mfnet / "images", mfnet / "labels", *(msrs / "train" / n for n in ("ir", "vi", "Labels"))):
        path.mkdir(parents=True)
    for name in ("00001D", "00002N", "00003D"):
        values = generator.integers(0, 256, (12, 16, 4), dtype=np.uint8)
        labels = Image.fromarray(generator.integers(0, 9, (12, 16), dtype=np.uint8))
        Image.fromarray(values).save(mfnet / "images" / f"{name}.png")
        labels.save(mfnet / "labels" / f"{name}.png")
        if name != "00003D":
            Image.fromarray(values[..., :3]).save(msrs / "train" / "vi" / f"{name}.png")
            Image.fromarray(values[..., 3]).save(msrs / "train" / "ir" / f"{name}.png")
            labels.save(msrs / "train" / "Labels" / f"{name}.png")
    (mfnet / "train.txt").write_text("00001D\n00002N\n")
    ours, theirs = list(read_mfnet(mfnet, "train")), list(read_msrs(msrs, "train"))
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs):
        for a, b in zip(one, other):
            assert torch.allclose(a, b, atol=1e-6)
    assert ours[0].ir[0, 0, 0, 0].item() == pytest.approx(
        np.array(Image.open(mfnet / "images" / "00001D.png"))[0, 0, 3] / 255
    )
    Image.fromarray(np.full((12, 16), 77, np.uint8)).save(mfnet / "labels" / "00001D.png")
    with pytest.raises(UserError, match="no label map of its image"):
        next(read_mfnet(mfnet, "train"))
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(mfnet / "images" / "00001D.png")
    with pytest.raises(UserError, match="not the four channels"):
        next(read_mfnet(mfnet, "train"))
    (msrs / "train" / "Labels").rename(msrs / "train" / "drawn")
    with pytest.raises(UserError, match="one folder of labels"):
        next(read_msrs(msrs, "train"))
