"""Every family through the whole path: checkpoint file, bundle, six clicks on a photograph, torch's masks.

What torch says comes from the same networks run eagerly, flips and Pixel Diffusion called one by one, and
the preset's own pipeline: nothing of the export, of the manifest or of ONNX.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from public_families import TESTED
from skimage import data
from torch_backend import torch_segmenter

from clickmask.segmenter import Segmenter
from clickmask_export.command import main
from clickmask_models.presets import pipeline
from clickmask_models.public_checkpoints import open_checkpoint

# (x, y, positive) on the astronaut: face, background, suit, background, arm, background.
CLICKS = [(225, 120, 1), (400, 60, 0), (250, 420, 1), (60, 60, 0), (150, 380, 1), (450, 480, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTED)
def test_a_checkpoint_file_becomes_a_bundle_that_cuts_the_masks_of_torch(name, tmp_path, shared, capsys):
    family = TESTED[name]
    checkpoints = family.write(tmp_path, shared)
    opened = [open_checkpoint(path) for path in checkpoints]
    assert main(family.arguments(checkpoints, tmp_path / "engine", (family.test_size,))) == 0
    printed = capsys.readouterr().err
    assert all(one.description in printed for one in opened)

    networks = dict(zip(("network", "local_network"), (one.network for one in opened), strict=False))
    settings = replace(pipeline(family.preset), sizes=(family.test_size,))
    ours = Segmenter.load(tmp_path / "engine").session(data.astronaut())
    right = torch_segmenter(settings, **networks).session(data.astronaut())
    shares = []
    for x, y, positive in CLICKS:
        masks = [session.click(x, y, bool(positive)) for session in (ours, right)]
        assert ours.crop == right.crop
        difference = np.not_equal(*masks).sum()
        assert difference <= 1e-4 * masks[1].size
        shares.append(masks[1].mean())
    assert min(shares) > 0.002
    assert max(shares) < 0.8
    assert len(set(shares)) > 1  # clicks count
