"""Readers of training data: each layout as it is released, in small."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from squares import write_set

from clickmask.errors import InvalidInputError
from clickmask_training.checks import ConfigError
from clickmask_training.clicks import random_clicks
from clickmask_training.data import TrainingData
from clickmask_training.settings import ClickSettings, DataSettings
from clickmask_training.sources import load_set

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
KEPT = "b.jpg"  # a name that is trained on


def indices() -> np.ndarray:
    out = np.zeros((60, 80), np.uint8)
    out[5:30, 10:40], out[35:55, 20:70] = 1, 2
    return out


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), PHOTO)


def masks_of(root: Path, **settings: object) -> list[np.ndarray]:
    (item,) = load_set(root, DataSettings(**settings), held_out=False)
    return [item.pixels.read([int(i)])[1] for i in item.ids]


def test_sbd_is_read_by_its_training_list(tmp_path: Path) -> None:
    write_photo(tmp_path / "sbd/img/b.jpg")
    (tmp_path / "sbd/inst").mkdir()
    savemat(tmp_path / "sbd/inst/b.mat", {"GTinst": {"Segmentation": indices()}})
    (tmp_path / "sbd/train.txt").write_text("b\n")
    for in_memory in (True, False):
        first, second = masks_of(tmp_path / "sbd", in_memory=in_memory)
        np.testing.assert_array_equal(first, np.select([indices() == 1, indices() == 2], [1, 2]))
        np.testing.assert_array_equal(second == 1, indices() == 2)


def test_coco_and_lvis_are_joined_by_image(tmp_path: Path) -> None:
    write_photo(tmp_path / "coco/train2017/b.jpg")
    annotations = tmp_path / "coco/annotations"
    annotations.mkdir()
    image = {"id": 7, "width": 80, "height": 60}
    square = [[10, 5, 40, 5, 40, 30, 10, 30]]
    thing = {"image_id": 7, "segmentation": square, "area": 750, "iscrowd": 0}
    crowd = {"image_id": 7, "segmentation": {"size": [60, 80], "counts": [4800]}, "area": 4800, "iscrowd": 1}
    document = {"images": [{**image, "file_name": "b.jpg"}], "annotations": [thing, crowd]}
    (annotations / "instances_train2017.json").write_text(json.dumps(document))
    other = {"image_id": 7, "segmentation": [[20, 20, 70, 20, 70, 55, 20, 55]], "area": 1750}
    address = "http://images.cocodataset.org/train2017/b.jpg"
    (annotations / "lvis_v1_train.json").write_text(
        json.dumps({"images": [{**image, "coco_url": address}], "annotations": [other]})
    )
    assert len(masks_of(tmp_path / "coco")) == 1
    first, second = masks_of(tmp_path / "coco", splits={"coco": "train2017+lvis_v1_train"})
    np.testing.assert_array_equal(first == 1, indices() == 1)
    assert (first[35:55, 42:70] == 2).all()
    assert (second[20:30, 20:40] == 1).all()  # objects may overlap: the chosen one lies on top
    with pytest.raises(ConfigError, match=r"instances_val2017\.json"):
        masks_of(tmp_path / "coco", splits={"coco": "val2017"})
    cv2.imwrite(str(tmp_path / "coco/train2017/b.jpg"), PHOTO[:-1])
    with pytest.raises(ConfigError, match=r"b\.jpg: expected a mask of the image's size, \(59, 80\)"):
        masks_of(tmp_path / "coco")


def test_cocos_panoptic_masks(tmp_path: Path) -> None:
    write_photo(tmp_path / "coco/train2017/b.jpg")
    annotations = tmp_path / "coco/annotations"
    masks = annotations / "panoptic_train2017"
    masks.mkdir(parents=True)
    numbers = np.select([indices() == 1, indices() == 2], [70_000, 513], 0)
    numbers[:, 72:] = 5
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(masks / "b.png")  # 70000 is (112, 17, 1), as COCO's id2rgb has it
    assert colours[10, 15].tolist() == [112, 17, 1]
    segments = [
        {"id": 70_000, "category_id": 1, "area": 600, "iscrowd": 0},
        {"id": 5, "category_id": 1, "area": 480, "iscrowd": 1},
        {"id": 513, "category_id": 184, "area": 1000, "iscrowd": 0},
    ]
    document = {
        "images": [{"id": 7, "width": 80, "height": 60, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 7, "file_name": "b.png", "segments_info": segments}],
        "categories": [{"id": 1, "isthing": 1}, {"id": 184, "isthing": 0}],
    }
    (annotations / "panoptic_train2017.json").write_text(json.dumps(document))
    splits = {"coco": "panoptic_train2017"}
    thing, stuff = masks_of(tmp_path / "coco", splits=splits)
    expected = np.where(numbers == 5, 255, np.minimum(indices(), 2))
    np.testing.assert_array_equal(thing, expected)  # 1 the thing, 2 the stuff
    np.testing.assert_array_equal(stuff == 1, indices() == 2)
    (item,) = load_set(
        tmp_path / "coco", DataSettings(splits=splits, things=4.0, area_power=0), held_out=False
    )
    np.testing.assert_allclose(item.weights, [0.8, 0.2])
    masks.rename(annotations / "elsewhere")
    with pytest.raises(
        ConfigError, match=r"expected the masks of panoptic_train2017\.json in .*, found neither"
    ):
        masks_of(tmp_path / "coco", splits=splits)


@pytest.mark.parametrize("kind", ["indexed", "levels", "white"])
def test_a_plain_folder_of_images_and_masks(kind: str, tmp_path: Path) -> None:
    write_photo(tmp_path / "mine/images/b.jpg")
    (tmp_path / "mine/masks").mkdir()
    values = indices() if kind != "white" else np.where(indices() == 1, 255, np.where(indices() == 2, 128, 0))
    picture = Image.fromarray(values.astype(np.uint8))
    (picture.convert("P") if kind == "indexed" else picture).save(tmp_path / "mine/masks/b.png")
    got = masks_of(tmp_path / "mine")
    assert len(got) == (1 if kind == "white" else 2)
    np.testing.assert_array_equal(got[0] == 1, indices() == 1)
    assert (got[0][indices() == 2] == (255 if kind == "white" else 2)).all()


def test_a_plain_mask_of_more_than_8_bits_is_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "mine/images/b.jpg")
    (tmp_path / "mine/masks").mkdir()
    Image.fromarray(indices().astype(np.uint16) * 300).save(tmp_path / "mine/masks/b.png")
    with pytest.raises(InvalidInputError, match=r"b\.png: expected an 8-bit mask, got mode I;16; save it"):
        masks_of(tmp_path / "mine")


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    write_photo(tmp_path / "mine/images/b.jpg")
    (tmp_path / "mine/masks").mkdir()
    Image.fromarray(indices()[:-1]).save(tmp_path / "mine/masks/b.png")
    with pytest.raises(ConfigError, match=r"b\.png: expected a mask of the image's size, \(60, 80\)"):
        load_set(tmp_path / "mine", DataSettings(), held_out=False)


@pytest.mark.parametrize(
    ("root", "photos", "masks"),
    [
        ("renamed", "img", "gt"),
        ("renamed", "data_GT", "boundary_GT"),
        ("Berkeley", "images", "masks"),
        ("coco_mval_dev", "images", "masks"),
        ("eval/renamed", "images", "masks"),
    ],
)
def test_benchmarks_are_never_trained_on(root: str, photos: str, masks: str, tmp_path: Path) -> None:
    write_photo(tmp_path / root / photos / "b.jpg")
    write_photo(tmp_path / root / masks / "b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / root)
    for path in (tmp_path / root, tmp_path / "link"):
        with pytest.raises(ConfigError, match="got one that quality is measured on"):
            load_set(path, DataSettings(), held_out=False)


def test_no_shared_benchmark_is_taken_for_training(shared: Path) -> None:
    for root in sorted((shared / "data/eval").iterdir()):
        with pytest.raises(ConfigError, match="got one that quality is measured on"):
            load_set(root, DataSettings(), held_out=False)


def test_images_are_drawn_by_their_scores(tmp_path: Path) -> None:
    write_set(tmp_path / "squares", count=3)
    (tmp_path / "scores.json").write_text(json.dumps({"0.png": 1.0, "1.png": 0.5, "2.png": 0.0}))
    settings = DataSettings(scores={"squares": "scores.json"}, score_power=2.0, merge=0.0)
    data = TrainingData(tmp_path, {"squares": 1.0}, settings)
    rng = np.random.default_rng(0)
    tops = [int(np.argmax((data.draw(rng)[1] == 1).any(axis=1))) for _ in range(400)]
    assert tops.count(10) == 0
    assert 50 < tops.count(15) < 115  # a fifth
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"data\.scores: expected .*scores.json to hold"):
        TrainingData(tmp_path, {"squares": 1.0}, settings)


def assert_shares(counts: list[int], shares: np.ndarray | list[float]) -> None:
    """Each share is the expected one, but for four standard errors of so many draws."""
    draws, expected = sum(counts), np.asarray(shares)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(np.array(counts) / draws - expected) <= 4 * error).all(), (counts, expected)


def test_data_sets_are_drawn_by_their_shares_whatever_they_hold(tmp_path: Path) -> None:
    write_set(tmp_path / "few", count=1)
    write_set(tmp_path / "many", count=5)
    for path in (tmp_path / "many/images").iterdir():
        cv2.imwrite(str(path), np.zeros((120, 160, 3), np.uint8))
    data = TrainingData(tmp_path, {"few": 3.0, "many": 1.0})
    rng = np.random.default_rng(0)
    dark = sum(not data.draw(rng)[0].any() for _ in range(1000))
    assert_shares([1000 - dark, dark], [0.75, 0.25])


@pytest.mark.parametrize(("power", "share"), [(0.0, 0.5), (2.0, 0.64)])  # 1000^2 / (1000^2 + 750^2)
def test_large_objects_are_drawn_as_much_oftener_as_configured(
    power: float, share: float, tmp_path: Path
) -> None:
    write_photo(tmp_path / "mine/images/b.jpg")
    (tmp_path / "mine/masks").mkdir()
    Image.fromarray(indices()).convert("P").save(tmp_path / "mine/masks/b.png")  # of 750 and 1000 pixels
    data = TrainingData(tmp_path, {"mine": 1.0}, DataSettings(area_power=power, merge=0.0))
    rng = np.random.default_rng(0)
    areas = [int((data.draw(rng)[1] == 1).sum()) for _ in range(1000)]
    assert_shares([areas.count(1000), areas.count(750)], [share, 1 - share])


def test_numbers_of_clicks_fall_off_geometrically() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:54, 10:54] = 1
    settings = ClickSettings(single=0.0, positive=4, positive_decay=0.5, negative=3, negative_decay=0.8)
    rng = np.random.default_rng(0)
    labels = np.array([random_clicks(mask, settings, rng)[:, 2] for _ in range(2000)])
    positive, negative = (labels == 1).sum(axis=1), (labels == 0).sum(axis=1)
    chances = 0.5 ** np.arange(4)
    assert_shares([(positive == count).sum() for count in range(1, 5)], chances / chances.sum())
    chances = 0.8 ** np.arange(4)
    assert_shares([(negative == count).sum() for count in range(4)], chances / chances.sum())


def test_a_share_of_the_samples_has_one_click_alone() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:54, 10:54] = 1
    settings = ClickSettings(single=0.25, positive=10, positive_decay=1.0, negative=9, negative_decay=1.0)
    rng = np.random.default_rng(0)
    labels = np.array([random_clicks(mask, settings, rng)[:, 2] for _ in range(2000)])
    alone = int(((labels >= 0).sum(axis=1) == 1).sum())
    assert_shares([alone, 2000 - alone], [0.2575, 0.7425])  # of the other 75 %, 1 in 10 * 10 by chance


def test_negative_clicks_fall_on_other_objects_as_configured() -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[10:30, 10:30], mask[50:70, 50:70] = 1, 2
    rng = np.random.default_rng(0)
    settings = ClickSettings(single=0.0, near=0.2, on_others=0.7, negative=20, negative_decay=1.0)
    rows = np.concatenate([random_clicks(mask, settings, rng) for _ in range(200)])
    x, y = rows[rows[:, 2] == 0, :2].astype(int).T
    share = (mask[y, x] == 2).mean()
    assert 0.65 < share < 0.78
    assert (mask[y, x] != 1).all()


def test_the_first_click_can_lie_near_the_middle() -> None:
    mask = np.zeros((90, 90), np.uint8)
    mask[10:80, 10:80] = 1
    rng = np.random.default_rng(0)
    settings = ClickSettings(single=0.0, first_near_centre=True, eroded=0.0)
    clicks = np.array([random_clicks(mask, settings, rng) for _ in range(100)])
    assert (np.abs(clicks[:, 0, :2] - 44.5).max(axis=1) < 35 * (1 - 1 / 1.7) + 1).all()
    later = clicks[:, 1:10][clicks[:, 1:10, 2] == 1]
    assert (np.abs(later[:, :2] - 44.5).max(axis=1) > 30).any()
