"""Image backbones, without classification heads."""
