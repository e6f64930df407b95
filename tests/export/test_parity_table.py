"""The table of parity: a row for every artefact and kind of image, as the manifests say."""

from __future__ import annotations

from dataclasses import replace

import parity_table
import pytest
from public_families import FAMILIES, Family

from clickmask.backends.fake import fake_manifest
from clickmask.manifest import Parity

MANIFEST = fake_manifest(preset="official")  # of 64, 96 and 128 px
PARITY = {
    "flat": Parity(1.0, 0.0, 2e-5),
    "noise": Parity(0.99957, 3e-4, 1.25e-5),
    "collage, 96 px": Parity(1.0, 0.0, 1.25),
    "collage, 128 px": Parity(0.9, 0.0, 2e-3),
}
MANIFEST = replace(
    MANIFEST, artefacts=tuple(replace(artefact, parity=PARITY) for artefact in MANIFEST.artefacts)
)


def run(monkeypatch, path):
    monkeypatch.setattr("sys.argv", ["parity_table.py", "--output", str(path)])
    return parity_table.main()


def test_the_document_lists_the_worst_of_each_size(monkeypatch, tmp_path):
    monkeypatch.setattr(parity_table, "build_family", lambda *_: MANIFEST)
    assert run(monkeypatch, tmp_path / "parity.md") == 0
    text = (tmp_path / "parity.md").read_text()
    for name in FAMILIES:
        rows = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert [row.partition(" | onnxruntime fp32 | ")[2] for row in rows] == [
            "64 | 0.99957 | 3.0e-04 | 2.0e-05 |",
            "96 | 1.00000 | 0.0e+00 | 1.2e+00 |",
            "128 | 0.90000 | 0.0e+00 | 2.0e-03 |",
        ]
        assert "| official | " in rows[0]


def test_a_failed_build_leaves_the_table_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(
        parity_table, "FAMILIES", {"broken": Family(lambda *_: [tmp_path / "no.pth"], "paper")}
    )
    with pytest.raises(SystemExit, match="left as it was"):
        run(monkeypatch, tmp_path / "parity.md")
    assert not (tmp_path / "parity.md").exists()


def test_two_checkpoints_are_the_network_s_and_the_local_one_s(tmp_path):
    family = Family(lambda *_: [], "csfp_official", ("--fdm", "dense"))
    paths = [tmp_path / "coarse.pth", tmp_path / "fine.pth"]
    arguments = family.arguments(paths, tmp_path / "engine", (64, 96))
    assert arguments[arguments.index("--checkpoint") + 1] == str(paths[0])
    assert arguments[arguments.index("--local-checkpoint") + 1] == str(paths[1])
    assert "--local-checkpoint" not in family.arguments(paths[:1], tmp_path / "engine", (64,))
