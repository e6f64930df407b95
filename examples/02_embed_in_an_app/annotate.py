"""The life of an annotation in an application: threads, undo, an existing mask, saving and restoring."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage import data

from clickmask import InvalidInputError, Segmenter, Session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="engine bundle (default: the one that ships with clickmask)")
    parser.add_argument("--output", type=Path, default=Path("out/annotate"), help="folder for the results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    segmenter = Segmenter.load(options.bundle)  # one for the whole application
    photo = data.astronaut()

    session = segmenter.session(photo)
    click_and_change_my_mind(session)
    correct_an_existing_mask(segmenter, photo, session.mask)
    annotate_side_by_side(segmenter, [photo, data.coffee()])
    survive_a_wrong_click(session)

    saved = session.to_json()
    (options.output / "session.json").write_text(saved)
    restored = Session.from_json(segmenter, photo, saved)
    assert np.array_equal(restored.mask, session.mask)
    print(f"restored {len(restored.clicks)} clicks; the mask is the same, bit for bit")
    # With other_bundle=True it would go on from the mask after an update of the engine, too.

    regions = [
        {"outer": outer.tolist(), "holes": [hole.tolist() for hole in holes]}
        for outer, holes in session.regions()
    ]
    (options.output / "polygons.json").write_text(json.dumps({"bbox": session.bbox(), "regions": regions}))
    print(f"wrote {len(regions)} outlines to {options.output / 'polygons.json'}")


def click_and_change_my_mind(session: Session) -> None:
    first = session.click(230, 110)
    session.click(170, 330)
    session.undo()
    assert np.array_equal(session.mask, first)
    session.redo()
    session.click(400, 450, positive=False)
    session.remove(2)  # takes one click out, wherever it stands in the order
    session.undo()  # and the removal back
    print(f"{len(session.clicks)} clicks, {session.mask.sum()} pixels, crop {session.crop}")


def correct_an_existing_mask(segmenter: Segmenter, photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    session = segmenter.session(photo)
    session.set_mask(mask)  # from another model, or from last week
    session.click(320, 300)
    changed = np.count_nonzero(session.mask != mask)
    print(f"one click on an existing mask changed {changed} pixels")


def annotate_side_by_side(segmenter: Segmenter, photos: list[NDArray[np.uint8]]) -> None:
    def annotate(photo: NDArray[np.uint8]) -> int:
        height, width = photo.shape[:2]
        return int(segmenter.session(photo).click(width / 2, height / 2).sum())

    with ThreadPoolExecutor() as pool:  # sessions are independent; the segmenter is shared
        for index, pixels in enumerate(pool.map(annotate, photos)):
            print(f"photo {index}: {pixels} pixels")


def survive_a_wrong_click(session: Session) -> None:
    before = session.mask
    try:
        session.click(-20, 10)
    except InvalidInputError as error:
        print(f"refused: {error}")
    assert session.mask is before  # a failed call leaves the session as it was


if __name__ == "__main__":
    main()
