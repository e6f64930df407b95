"""PyTorch networks of clickmask: CDNet, published and encode-once, CSFP and RITM, and their checkpoints.

Every network shares one calling convention::

    logits = network(image, clicks, previous_mask)

with ``image`` (B, 3, H, W) float RGB in [0, 1], ``clicks`` (B, M, 3) float rows (x, y, label) in
network pixels (label 1 positive, 0 negative, -1 absent) and ``previous_mask`` (B, 1, H, W) float
probability, or None for networks without that input. This package needs torch and safetensors only.
"""
