"""What the public implementations call the tensors that our networks have, and which of theirs we drop.

Tables run from our prefix to the public one; what follows the prefix is the same in both. Every tensor of
ours has exactly one public name, so that a file's missing and unknown tensors are reported by its own names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# RITM and all built on it: features of the click maps, added after the stem.
CONV1S = {
    "fusion.layers.": "maps_transform.",
    "fusion.scale": "maps_transform.3.scale",
}
# f-BRS: three channels made of image and click maps.
MAP_FUSION = {"fusion.layers.": "rgb_conv."}

# DeepLabV3+ of f-BRS, RITM and ClickSEG; CDNet adds FEATURE_DIFFUSION.
DEEPLAB = {
    "backbone.": "feature_extractor.backbone.",
    "aspp.branches.": "feature_extractor.aspp.concurent.",
    "aspp.pooling.0.": "feature_extractor.aspp.concurent.4.gap.1.",
    "aspp.pooling.1.": "feature_extractor.aspp.concurent.4.gap.2.",
    "aspp.project.": "feature_extractor.aspp.project.",
    "decoder.skip.": "feature_extractor.skip_project.skip_project.",
    "decoder.block.0.": "feature_extractor.head.block.0.body.",
    "decoder.block.1.": "feature_extractor.head.block.1.body.",
    "decoder.block.2.": "feature_extractor.head.block.2.",
    "head.0.": "head.layers.0.body.",
    "head.1.": "head.layers.1.body.",
    "head.2.": "head.layers.2.",
}
FEATURE_DIFFUSION = {
    "feature_diffusion.destination_head.0.": "feature_extractor.FDM.gate_head_pos.layers.0.body.0.",
    "feature_diffusion.destination_head.1.0.": "feature_extractor.FDM.gate_head_pos.layers.0.body.1.",
    "feature_diffusion.destination_head.1.1.": "feature_extractor.FDM.gate_head_pos.layers.0.body.2.",
    "feature_diffusion.destination_head.2.": "feature_extractor.FDM.gate_head_pos.layers.1.",
    "feature_diffusion.theta.": "feature_extractor.FDM.t.",
    "feature_diffusion.phi.": "feature_extractor.FDM.p.",
    "feature_diffusion.g.": "feature_extractor.FDM.g.",
    "feature_diffusion.project.0.0.": "feature_extractor.FDM.z.",
    "feature_diffusion.project.0.1.": "feature_extractor.FDM.bn.",
    "feature_diffusion.project.1.0.": "feature_extractor.FDM.z2.",
    "feature_diffusion.project.1.1.": "feature_extractor.FDM.bn2.",
}

# HRNet with OCR of RITM and CSFPN.
_CONTEXT = "feature_extractor.ocr_distri_head."
HRNET = {
    "backbone.": "feature_extractor.",
    "ocr.f_down.0.": f"{_CONTEXT}object_context_block.f_down.0.",
    "ocr.f_down.1.": f"{_CONTEXT}object_context_block.f_down.1.0.",
    "ocr.f_up.0.": f"{_CONTEXT}object_context_block.f_up.0.",
    "ocr.f_up.1.": f"{_CONTEXT}object_context_block.f_up.1.0.",
    "ocr.conv_bn_dropout.0.": f"{_CONTEXT}conv_bn_dropout.0.",
    "ocr.conv_bn_dropout.1.": f"{_CONTEXT}conv_bn_dropout.1.0.",
    "ocr.": "feature_extractor.",
}

# What CSFPN adds to it: SGM and HSGM.
SPARSE_PROPAGATION = {
    "sgm.heads.": "feature_extractor.att.atts.",
    "sgm.projection.": "feature_extractor.att.conv1.",
    "hsgm.fusion.": "feature_extractor.upatt.fusion.",
    "hsgm.attention.": "feature_extractor.upatt.",
}

# Public prefixes of tensors that inference does without, and why.
DROPPED_CDNET = {
    "latent_head.": "for the training loss only",
    "PDM.": "constant kernels, which are built from the configuration",
}
DROPPED_DEEPLAB = {"aspp_dropout": "a note for training"}
DROPPED_HRNET = {
    f"{_CONTEXT}object_context_block.f_pixel.": "queries of a softmax over one class, which is 1",
    f"{_CONTEXT}object_context_block.f_object.": "keys of a softmax over one class, which is 1",
}


def public_names(ours: Iterable[str], table: Mapping[str, str]) -> dict[str, str]:
    """For each of our tensor names the public one, by the longest prefix in ``table``.

    Raises:
        KeyError: the table has no prefix of a name; it must cover a network whole.
    """
    prefixes = sorted(table, key=len, reverse=True)
    names = {}
    for name in ours:
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            raise KeyError(f"no public name is known for {name}")
        names[name] = table[prefix] + name.removeprefix(prefix)
    return names
