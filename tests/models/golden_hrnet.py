"""What the recordings of HRNet networks (RITM, CSFP) share: names of modules, and of tensors."""

from __future__ import annotations

from torch import Tensor

# Submodule whose output was recorded -> (name, channel step, row and column step).
RECORDED = {
    "fusion": ("maps_transform", 16, 4),
    "backbone.layer1": ("layer1", 32, 4),
    "backbone": ("feats_s4", 45, 2),
    "ocr.aux_head": ("aux_s4", 1, 1),
    "ocr.conv3x3_ocr": ("conv3x3_ocr", 16, 4),
    "ocr.conv_bn_dropout": ("ocr_out", 16, 4),
    "ocr": ("logits_low", 1, 1),
}
# Stage of the backbone -> its branches.
STAGES = {2: 2, 3: 3, 4: 4}


def branches(kept: dict[str, tuple]) -> dict[str, Tensor]:
    """Recorded name -> subsampled output of each branch of each stage; ``kept`` is of ``golden.run``."""
    outputs = {}
    for stage, count in STAGES.items():
        found = kept[f"backbone.stage{stage}"][1]
        assert len(found) == count
        for index, branch in enumerate(found):
            step = max(1, 4 >> index)
            outputs[f"stage{stage}_b{index}"] = branch[0, :: 6 * 2**index, ::step, ::step]
    return outputs
