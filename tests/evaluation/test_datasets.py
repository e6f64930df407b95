"""Each benchmark's released layout, made small, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import SIZE, disk, photo, save, save_indexed
from PIL import Image
from pycocotools import mask as coco
from scipy.io import savemat

from clickmask.errors import InvalidInputError
from clickmask.evaluation.datasets import detect, read_dataset, read_instances
from clickmask.evaluation.samples import fingerprint
from clickmask.evaluation.truths import read_drawn

OBJECT = disk(60, 60, 20)
OTHER = disk(120, 50, 15)


def write_grabcut(root: Path) -> None:
    trimap = np.where(disk(60, 60, 24), 128, 0)
    trimap[OBJECT] = 255
    trimap[0, 0] = 64  # below 128 is background as well
    for stem, ending in (("banana", ".bmp"), ("21077", ".jpg")):
        save(root / "data_GT" / f"{stem}{ending}", photo(OBJECT))
        save(root / "boundary_GT" / f"{stem}.bmp", trimap)


def write_berkeley(root: Path) -> None:
    save(root / "images/12003.jpg", photo(OBJECT))
    save(root / "masks/12003.png", OBJECT * 255)
    save(root / "masks/12003a.png", OTHER * 255)


def write_davis(root: Path) -> None:
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[OBJECT] = (0, 0, 128)
    colours[OTHER] = (0, 128, 0)
    save(root / "img/000.jpg", photo(OBJECT))
    save(root / "gt/000.png", colours)


def write_sbd(root: Path) -> None:
    instances = OBJECT * 1 + OTHER * 2
    root = root / "benchmark_RELEASE/dataset"
    save(root / "img/2008_000002.jpg", photo(OBJECT))
    (root / "inst").mkdir()
    struct = {"Segmentation": instances.astype(np.uint8), "Categories": np.array([[20], [7]], np.uint8)}
    savemat(root / "inst/2008_000002.mat", {"GTinst": struct})
    (root / "val.txt").write_text("2008_000002\n")


def write_voc(root: Path) -> None:
    indices = OBJECT * 1 + OTHER * 2
    indices[disk(60, 60, 23) & ~OBJECT] = 255
    root = root / "VOCdevkit/VOC2012"
    save(root / "JPEGImages/2007_000033.jpg", photo(OBJECT))
    save_indexed(root / "SegmentationObject/2007_000033.png", indices)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n")


SQUARE = [40.0, 40.0, 81.0, 40.0, 81.0, 81.0, 40.0, 81.0]
BOX = np.zeros(SIZE, bool)
BOX[40:81, 40:81] = True


def write_coco(root: Path, **changes: Any) -> None:
    run_lengths = coco.encode(np.asfortranarray(OTHER.astype(np.uint8)))
    run_lengths["counts"] = run_lengths["counts"].decode()
    annotations = [
        {"id": 9, "image_id": 5, "iscrowd": 0, "area": 1681.0, "segmentation": [SQUARE]},
        {"id": 3, "image_id": 5, "iscrowd": 0, "area": float(OTHER.sum()), "segmentation": run_lengths},
        {"id": 4, "image_id": 5, "iscrowd": 1, "area": 9.0, "segmentation": run_lengths},
        {"id": 6, "image_id": 5, "iscrowd": 0, "area": 0.1, "segmentation": [[9.0, 9.0, 9.1, 9.0, 9.1, 9.1]]},
    ]
    image = {"id": 5, "file_name": "000000000005.jpg", "width": SIZE[1], "height": SIZE[0]}
    save(root / "val2017/000000000005.jpg", photo(OBJECT))
    (root / "annotations").mkdir()
    document = {"images": [image], "annotations": annotations, **changes}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(document))


LAYOUTS = [
    (write_grabcut, "grabcut", ["21077", "banana"], [OBJECT, OBJECT]),
    (write_berkeley, "berkeley", ["12003", "12003a"], [OBJECT, OTHER]),
    (write_davis, "davis", ["000"], [OBJECT | OTHER]),
    (write_sbd, "sbd", ["2008_000002#1", "2008_000002#2"], [OBJECT, OTHER]),
    (write_voc, "voc", ["2007_000033#1", "2007_000033#2"], [OBJECT, OTHER]),
    (write_coco, "coco", ["9", "3"], [BOX, OTHER]),
]


@pytest.mark.parametrize(("write", "layout", "names", "truths"), LAYOUTS, ids=[row[1] for row in LAYOUTS])
def test_a_released_layout_is_recognised_and_read(
    tmp_path: Path, write: Callable[[Path], None], layout: str, names: list[str], truths: list[np.ndarray]
) -> None:
    write(tmp_path)
    assert detect(tmp_path)[0] == layout
    samples = read_dataset(tmp_path)
    assert [sample.name for sample in samples] == names
    for sample, truth in zip(samples, truths, strict=True):
        np.testing.assert_array_equal(sample.truth()[0], truth)
        assert sample.image().shape == (*SIZE, 3)
    assert read_dataset(tmp_path, layout) == samples


def test_the_objects_of_a_coco_image_follow_each_other(tmp_path: Path) -> None:
    # COCO's own list is mixed; an image is read once where its objects follow each other.
    size = {"width": SIZE[1], "height": SIZE[0]}
    images = [{"id": i, "file_name": f"{i:012}.jpg", **size} for i in (7, 5)]
    square = {"area": 1681.0, "segmentation": [SQUARE]}
    annotations = [{"id": i, "image_id": (5, 7)[i % 2], **square} for i in range(4)]
    write_coco(tmp_path, images=images, annotations=annotations)
    save(tmp_path / "val2017/000000000007.jpg", photo(OBJECT))
    assert [sample.name for sample in read_dataset(tmp_path)] == ["1", "3", "0", "2"]


@pytest.mark.parametrize(("write", "count"), [(write_grabcut, 24), (write_voc, 23)], ids=["grabcut", "voc"])
def test_bands_that_nobody_labelled_are_ignored(
    tmp_path: Path, write: Callable[[Path], None], count: int
) -> None:
    write(tmp_path)
    _, ignored = read_dataset(tmp_path)[0].truth()
    np.testing.assert_array_equal(ignored, disk(60, 60, count) & ~OBJECT)


def test_objects_of_one_image_or_video_are_one_group(tmp_path: Path) -> None:
    write_berkeley(tmp_path)
    assert {sample.group for sample in read_dataset(tmp_path)} == {"12003.jpg"}


@pytest.mark.parametrize("kind", ["palette", "grey levels", "colours"])
def test_masks_of_ones_own_may_number_their_objects(kind: str, tmp_path: Path) -> None:
    save(tmp_path / "images/mine.jpg", photo(OBJECT))
    save(tmp_path / "images/other.png", photo(OTHER))
    picture = Image.fromarray((OBJECT * 1 + OTHER * 2).astype(np.uint8))
    if kind == "palette":
        picture = picture.convert("P")
        picture.putpalette([0, 0, 0, 31, 119, 180, 255, 255, 255])  # a bright blue; a white beside it
    if kind == "colours":
        picture = picture.convert("RGB")
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks/mine.png")
    Image.fromarray(OTHER).save(tmp_path / "masks/other.png")  # one bit a pixel, white on black
    samples = read_dataset(tmp_path)
    assert [sample.name for sample in samples] == ["mine#1", "mine#2", "other"]
    for sample, truth in zip(samples, (OBJECT, OTHER, OTHER), strict=True):
        np.testing.assert_array_equal(sample.truth()[0], truth)


def test_a_mask_that_is_no_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path / "images/mine.jpg", photo(OBJECT))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/mine.png").write_bytes(b"no picture")
    with pytest.raises(InvalidInputError, match=r"mine\.png: expected a readable mask"):
        read_dataset(tmp_path)


def test_a_black_and_white_palette_is_a_picture_not_numbers(tmp_path: Path) -> None:
    save(tmp_path / "images/mine.jpg", photo(OBJECT))
    (tmp_path / "masks").mkdir()
    trimap = np.where(disk(60, 60, 24), 128, 0)
    trimap[OBJECT] = 255
    Image.fromarray(trimap.astype(np.uint8)).convert("P").save(tmp_path / "masks/mine.png")
    (sample,) = read_dataset(tmp_path)
    np.testing.assert_array_equal(sample.truth()[0], OBJECT)
    np.testing.assert_array_equal(sample.truth()[1], disk(60, 60, 24) & ~OBJECT)


@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 200, 40), (255, 255, 255)], ids=str)
def test_a_mask_of_ones_own_in_any_colour_is_read_as_training_reads_it(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    save(tmp_path / "images/mine.jpg", photo(OBJECT))
    (tmp_path / "masks").mkdir()
    pixels = (OBJECT[:, :, None] * np.array(colour)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "masks/mine.png")
    (sample,) = read_dataset(tmp_path)
    numbers, _ = read_drawn(tmp_path / "masks/mine.png")
    truth, ignored = sample.truth()
    np.testing.assert_array_equal(truth, OBJECT)
    np.testing.assert_array_equal(truth, numbers == 1)
    assert sample.name == "mine"
    assert not ignored.any()


@pytest.mark.parametrize(("dtype", "ending"), [("uint16", "png"), ("int32", "tif"), ("float32", "tif")])
def test_a_mask_of_ones_own_of_more_than_8_bits_is_refused(tmp_path: Path, dtype: str, ending: str) -> None:
    save(tmp_path / "images/mine.jpg", photo(OBJECT))
    (tmp_path / "masks").mkdir()
    Image.fromarray((OBJECT * 1 + OTHER * 300).astype(dtype)).save(tmp_path / f"masks/mine.{ending}")
    with pytest.raises(InvalidInputError, match=r"expected an 8-bit mask, got mode [IF].*; save it as 8-bit"):
        read_dataset(tmp_path)


def test_indexed_masks_are_read_as_indices_not_colours(dataset: Path) -> None:
    samples = read_dataset(dataset)
    assert [sample.name for sample in samples] == ["a.png", "b.png", "c.png", "d.png"]
    truth, ignored = samples[0].truth()
    np.testing.assert_array_equal(truth, disk(105, 60, 23))
    assert ignored.sum() == 10 * 160


def test_instances_of_an_indexed_mask_can_be_apart(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", photo(OBJECT))
    save_indexed(tmp_path / "masks/a.png", OBJECT * 3 + OTHER * 9)
    (tmp_path / "instances.json").write_text(json.dumps({"a.png": {"masks": {"a.png": {}}, "group": 4}}))
    (whole,) = read_dataset(tmp_path)
    np.testing.assert_array_equal(whole.truth()[0], OBJECT | OTHER)
    parts = read_dataset(tmp_path, "indexed-instances")
    assert [(part.name, part.group) for part in parts] == [("a.png#3", "group 4"), ("a.png#9", "group 4")]
    np.testing.assert_array_equal(parts[1].truth()[0], OTHER)


# What is refused


def test_a_folder_that_is_no_data_set_is_told_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"one of these contents: indexed: images, masks, inst.*grabcut:"
    ):
        read_dataset(tmp_path)
    with pytest.raises(InvalidInputError, match="nowhere does not exist"):
        read_dataset(tmp_path / "nowhere")


def test_a_root_whose_name_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"expected a readable data-set folder, got: .*too long"):
        read_dataset(tmp_path / ("n" * 300))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"a.png": {}}',
        '{"a.png": {"masks": {}}}',
        '{"a.png": {"masks": 5}}',
        '{"a.png": {"masks": "a.png"}}',
    ],
)
def test_a_broken_list_of_instances_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"instances\.json: expected"):
        read_instances(tmp_path)


def test_images_that_are_missing_are_named(dataset: Path) -> None:
    (dataset / "images/b.png").unlink()
    (dataset / "images/c.png").unlink()
    with pytest.raises(
        InvalidInputError, match=r"expected 4 images, got 2 of them missing: images/b.png, images/c.png"
    ):
        read_dataset(dataset)


def test_a_missing_image_elsewhere_is_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(json.dumps({"/nowhere/a.png": {"masks": {"a.png": {}}}}))
    with pytest.raises(InvalidInputError, match=r"1 of them missing: /nowhere/a\.png; complete the folder"):
        read_dataset(tmp_path, "indexed")


def test_a_mask_without_its_image_is_named(tmp_path: Path) -> None:
    write_grabcut(tmp_path)
    (tmp_path / "data_GT/banana.bmp").unlink()
    with pytest.raises(InvalidInputError, match=r"1 of them missing: data_GT/banana"):
        read_dataset(tmp_path)


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_davis(tmp_path)
    save(tmp_path / "img/001.jpg", photo(OBJECT))
    with pytest.raises(InvalidInputError, match=r"a mask for each image, got none for 001\.jpg"):
        read_dataset(tmp_path)


def test_objects_of_one_name_are_refused(tmp_path: Path) -> None:
    write_davis(tmp_path)
    save(tmp_path / "gt/000.bmp", OBJECT * 255)
    with pytest.raises(InvalidInputError, match="got these names again: 000"):
        read_dataset(tmp_path)
    (tmp_path / "gt/000.bmp").unlink()
    save(tmp_path / "img/000.png", photo(OBJECT))
    with pytest.raises(InvalidInputError, match=r"one image named 000, got 000\.jpg and 000\.png"):
        read_dataset(tmp_path)


def test_a_repeated_line_of_a_list_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("2007_000033\n2007_000033\n")
    with pytest.raises(InvalidInputError, match="each object once"):
        read_dataset(tmp_path)


def test_a_split_that_is_not_there_is_told_of_those_that_are(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(InvalidInputError, match=r"another with --split, of instances_val2017\.json"):
        read_dataset(tmp_path, split="val2014")


def test_a_layout_without_splits_takes_none(dataset: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no splits"):
        read_dataset(dataset, split="val")


@pytest.mark.parametrize("changes", [{"images": 3}, {"annotations": [{}]}, {"images": []}])
def test_a_broken_coco_file_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_coco(tmp_path, **changes)
    with pytest.raises(InvalidInputError, match="expected COCO's instances"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("width", [40.0, "40", None, -4, 0, True, 10**9], ids=repr)
def test_a_size_that_is_no_number_of_pixels_is_refused(tmp_path: Path, width: Any) -> None:
    image = {"id": 5, "file_name": "000000000005.jpg", "width": width, "height": SIZE[0]}
    write_coco(tmp_path, images=[image])
    with pytest.raises(InvalidInputError, match="of image 5, which are no numbers of pixels"):
        read_dataset(tmp_path)


def test_annotations_of_images_that_the_file_does_not_list_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path, annotations=[{"id": 1, "image_id": 7, "area": 9.0, "segmentation": [SQUARE]}])
    with pytest.raises(InvalidInputError, match="images that it does not list: 7"):
        read_dataset(tmp_path)


def test_a_broken_sbd_file_is_refused(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE/dataset/inst/2008_000002.mat"
    savemat(path, {"GTcls": 1})
    with pytest.raises(InvalidInputError, match=r"with GTinst\.Segmentation"):
        read_dataset(tmp_path)


def test_a_ground_truth_without_an_object_is_refused(tmp_path: Path) -> None:
    write_davis(tmp_path)
    save(tmp_path / "gt/000.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="000: expected an object"):
        read_dataset(tmp_path)[0].truth()


def test_a_true_colour_mask_is_no_indexed_one(dataset: Path) -> None:
    save(dataset / "masks/a.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="8-bit indexed PNG, got mode RGB"):
        read_dataset(dataset)[0].truth()


@pytest.mark.parametrize(
    ("package", "write", "extra"), [("PIL", write_voc, "Pillow"), ("scipy.io", write_sbd, "SciPy")]
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    write: Callable[[Path], None],
    extra: str,
) -> None:
    write(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInputError, match=rf"needs {extra}: pip install .clickmask\[evaluation\]"):
        read_dataset(tmp_path)


def test_the_fingerprint_of_coco_changes_with_an_outline_and_not_with_the_rest(tmp_path: Path) -> None:
    write_coco(tmp_path)
    before = fingerprint(read_dataset(tmp_path))
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"area": 1681.0', '"area": 1680.0'))
    assert fingerprint(read_dataset(tmp_path)) == before
    path.write_text(path.read_text().replace("81.0, 40.0", "82.0, 40.0"))
    assert fingerprint(read_dataset(tmp_path)) != before


def test_the_shared_benchmarks_have_the_objects_their_readme_says(shared: Path) -> None:
    samples = {name: read_dataset(shared / "data/eval" / name) for name in ("grabcut", "berkeley", "davis")}
    assert {name: len(found) for name, found in samples.items()} == {
        "grabcut": 35,
        "berkeley": 66,
        "davis": 242,
    }
    assert len({sample.group for sample in samples["davis"]}) == 35  # videos
    assert len({sample.group for sample in samples["berkeley"]}) == 62  # images
