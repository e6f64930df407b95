"""Opens an engine bundle and clicks once."""

from __future__ import annotations

import argparse

from skimage import data

from clickmask import Segmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True, help="engine bundle")
    options = parser.parse_args()
    segmenter = Segmenter.load(options.bundle)
    print(f"{segmenter} because: {segmenter.backend.reason}")
    mask = segmenter.session(data.coffee()).click(300, 150)
    print(f"mask {mask.shape} {mask.dtype}, {mask.sum()} pixels")


if __name__ == "__main__":
    main()
