"""Clicks by label: the same clicks, each label's in order, in few shapes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from clickmask.backends.click_rows import by_label, row_counts
from clickmask.backends.fake import FakeBackend, fake_manifest
from clickmask.encode import slot_counts
from clickmask.manifest_graphs import TENSORS

ABSENT = (-1, -1, -1)


def test_positive_clicks_come_first_and_keep_their_order():
    clicks = np.float32([[(1, 2, 1), (3, 4, 0), (5, 6, 1), ABSENT, (7, 8, 1)]])
    np.testing.assert_array_equal(
        by_label(clicks), [[[(1, 2, 1), (5, 6, 1), (7, 8, 1)], [(3, 4, 0), ABSENT, ABSENT]]]
    )
    assert by_label(clicks).dtype == np.float32


def test_images_of_a_batch_share_the_rows_that_the_busiest_needs():
    clicks = np.float32([[(1, 2, 1), ABSENT, ABSENT], [(1, 1, 0), (2, 2, 0), (9, 9, 1)]])
    got = by_label(clicks)
    assert got.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(got[1, 1], [(1, 1, 0), (2, 2, 0)])
    np.testing.assert_array_equal(got[0, 1], [ABSENT, ABSENT])


@pytest.mark.parametrize(
    ("count", "rows"),
    [
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 6),
        (6, 6),
        (7, 8),
        (9, 12),
        (13, 16),
        (97, 128),
        (128, 128),
    ],
)
def test_rows_come_in_few_numbers(count, rows):
    clicks = np.full((1, 128, 3), -1, np.float32)
    clicks[0, :count, 2] = 1
    assert by_label(clicks).shape == (1, 2, rows, 3)


@pytest.mark.parametrize(("slots", "count", "rows"), [(20, 17, 20), (20, 13, 16), (5, 5, 5), (1, 1, 1)])
def test_rows_are_never_more_than_a_plan_was_built_for(slots, count, rows):
    clicks = np.full((1, slots, 3), -1, np.float32)
    clicks[0, :count, 2] = 0
    assert by_label(clicks).shape == (1, 2, rows, 3)


@pytest.mark.parametrize("most", [1, 2, 3, 20, 24])
def test_warmup_meets_every_number_of_rows(most):
    class Recording(FakeBackend):
        def _run(self, graph, feeds):
            if "clicks_by_label" in feeds:
                rows.add(feeds["clicks_by_label"].shape[2])
            elif "clicks" in feeds:
                slots.add(feeds["clicks"].shape[1])
            feeds = {**feeds, "clicks": np.zeros((1, 1, 3), np.float32)}
            return super()._run(graph, feeds)

    rows, slots = set(), set()
    plain = fake_manifest(input={"max_clicks": most})
    Recording(plain).warmup()
    assert (rows, slots) == (set(), set(slot_counts(most)))
    network = plain.graphs["network"]
    inputs = tuple(TENSORS["clicks_by_label"] if i.name == "clicks" else i for i in network.inputs)
    graphs = {"network": dataclasses.replace(network, inputs=inputs)}
    Recording(dataclasses.replace(plain, graphs=graphs)).warmup()
    clicks = np.full((1, most, 3), 1, np.float32)
    given = {by_label(clicks * (np.arange(most) < n)[:, None]).shape[2] for n in range(1, most + 1)}
    assert given <= rows == row_counts(most)
