"""Names of the tensors in ClickSEG's CDNet checkpoints (ResNet-18/34), and ours for them.

The public code's two CDNet checkpoints hold the same architecture. Its diversified-training head and the
kernels of its Pixel Diffusion have no part in inference and are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

# Official prefixes without a counterpart here.
DROPPED = (
    "latent_head.",  # four extra outputs, for the training loss only
    "PDM.",  # one-hot kernels; ours are built from the configuration
)

# Official prefix -> ours; the rest of the name stays.
RENAMED = {
    "maps_transform.0.": "fusion.layers.0.",
    "maps_transform.2.": "fusion.layers.2.",
    "maps_transform.3.scale": "fusion.scale",
    "feature_extractor.backbone.": "backbone.",
    **{f"feature_extractor.aspp.concurent.{i}.": f"aspp.branches.{i}." for i in range(4)},
    "feature_extractor.aspp.concurent.4.gap.1.": "aspp.pooling.0.",
    "feature_extractor.aspp.concurent.4.gap.2.": "aspp.pooling.1.",
    "feature_extractor.aspp.project.": "aspp.project.",
    "feature_extractor.FDM.gate_head_pos.layers.0.body.0.": "feature_diffusion.destination_head.0.",
    "feature_extractor.FDM.gate_head_pos.layers.0.body.1.": "feature_diffusion.destination_head.1.0.",
    "feature_extractor.FDM.gate_head_pos.layers.0.body.2.": "feature_diffusion.destination_head.1.1.",
    "feature_extractor.FDM.gate_head_pos.layers.1.": "feature_diffusion.destination_head.2.",
    "feature_extractor.FDM.t.": "feature_diffusion.theta.",
    "feature_extractor.FDM.p.": "feature_diffusion.phi.",
    "feature_extractor.FDM.g.": "feature_diffusion.g.",
    "feature_extractor.FDM.z.": "feature_diffusion.project.0.0.",
    "feature_extractor.FDM.bn.": "feature_diffusion.project.0.1.",
    "feature_extractor.FDM.z2.": "feature_diffusion.project.1.0.",
    "feature_extractor.FDM.bn2.": "feature_diffusion.project.1.1.",
    "feature_extractor.skip_project.skip_project.": "decoder.skip.",
    **{f"feature_extractor.head.block.{i}.body.": f"decoder.block.{i}." for i in range(2)},
    "feature_extractor.head.block.2.": "decoder.block.2.",
    **{f"head.layers.{i}.body.": f"head.{i}." for i in range(2)},
    "head.layers.2.": "head.2.",
}


def official_keys(names: Iterable[str]) -> dict[str, str]:
    """Maps official tensor names to ours, without the dropped ones.

    Raises:
        ValueError: a name is not one of ClickSEG's CDNet.
    """
    keys = {}
    unknown = []
    for name in names:
        if name.startswith(DROPPED):
            continue
        prefix = next((prefix for prefix in RENAMED if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
        else:
            keys[name] = RENAMED[prefix] + name.removeprefix(prefix)
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise ValueError(
            f"expected the tensors of a ClickSEG CDNet checkpoint, got also {shown}; "
            "another architecture of the same class name? (FocalClick and RITM checkpoints look alike)"
        )
    return keys
