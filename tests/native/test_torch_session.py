"""Sessions whose image is on the device that TorchScript runs on, on doubles of CUDA and torch.cuda."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import DIFFUSION, make_bundle
from device_machines import HERE, Double, slope

torch = pytest.importorskip("torch", reason="TorchScript needs torch")

from torch_double import FakeTorch  # noqa: E402

from clickmask.backends import cuda_device, device_pixels  # noqa: E402
from clickmask.backends.lanes import Lanes  # noqa: E402
from clickmask.backends.torch_lane import TorchLane  # noqa: E402
from clickmask.backends.torchscript import TorchScriptBackend  # noqa: E402
from clickmask.bundle import load_bundle  # noqa: E402
from clickmask.segmenter import Segmenter  # noqa: E402

CLICKS = ((70, 60, True), (20, 20, False), (80, 50, True))


@pytest.fixture
def segmenter(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    monkeypatch.setattr(cuda_device, "host_facts", lambda: HERE)
    monkeypatch.setattr(device_pixels, "view_kernels", lambda: double.kernels)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    crop = {"kind": "fbrs", "start_click": 2, "min_size": 40}
    options: dict[str, Any] = {"encodes_once": True, "pixel_diffusion": DIFFUSION, "crop": crop}
    bundle = load_bundle(make_bundle(tmp_path / "bundle", backends=("torchscript",), bias=-1.75, **options))
    backend = TorchScriptBackend.open(bundle, bundle.manifest.artefacts[0], "cpu")
    backend._lanes = Lanes(lambda: TorchLane(FakeTorch(), "cpu"))
    backend.device, backend.takes_device_arrays = "cuda", True
    return Segmenter(bundle, backend)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_masks_and_previous_masks_are_those_of_a_session_on_the_processor(
    segmenter: Segmenter, double: Double, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    if warm:
        segmenter.warmup()
    sessions = [segmenter.session(double.foreign(slope())), segmenter.session(slope())]
    monkeypatch.setattr(segmenter.backend, "takes_device_arrays", False)
    plain = segmenter.session(slope())
    masks, crops = [], set()
    for click in CLICKS:
        masks.append(plain.click(*click))
        crops.add(plain.crop)
    assert len(crops) > 1
    assert 0.05 < masks[-1].mean() < 0.95

    monkeypatch.setattr(segmenter.backend, "takes_device_arrays", True)
    for session in sessions:
        for click in CLICKS:
            session.click(*click)
        np.testing.assert_allclose(session.probability, plain.probability, rtol=0, atol=2 / 255)
        for expected in masks[-2::-1]:
            wrong = session.undo() != expected
            assert wrong.mean() < 0.02  # a crop's levels may differ by one


def test_of_a_click_the_mask_in_bits_and_two_flags_come_to_the_host(
    segmenter: Segmenter, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = segmenter.session(double.foreign(slope()), prefetch=False)
    flags: list[int] = []
    item, uploads, upload = torch.Tensor.item, [], TorchLane.upload

    def counted(tensor: Any) -> Any:
        flags.append(tensor.nbytes)
        return item(tensor)

    def uploaded(lane: TorchLane, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            uploads.append(array.nbytes)
        return upload(lane, array)

    monkeypatch.setattr(torch.Tensor, "item", counted)
    monkeypatch.setattr(TorchLane, "upload", uploaded)
    monkeypatch.setattr(TorchLane, "download", None)
    for click in CLICKS:
        double.fake.crossed.clear()
        flags.clear()
        uploads.clear()
        session.click(*click)
        box = session.crop
        assert box is not None
        assert double.fake.crossed == {"out": box.height * ((box.width + 7) // 8)}
        assert flags == [1, 1]  # before Pixel Diffusion and after it
        assert uploads == [4 * 3 * 4] * 2  # clicks, for both graphs
