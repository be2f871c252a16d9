"""The corruption suite does what the paper describes, alike each time, and counts right."""

import numpy as np
import pytest

from model.data.labelled import Labelled
from model.modalities.digits.modality import SPEC
from model.modalities.digits.robustness import Accuracy, accuracies, prepare_all, table
from model.modalities.digits.synthetic.mnist_c import CORRUPTIONS, corrupt
from tests.digits import load_digits

DIGITS, LABELS = load_digits()
FEW = DIGITS[:100]
BLACK = np.zeros((70, 28, 28), dtype=np.uint8)


def test_there_are_the_papers_fifteen():
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_seed_decides_and_the_input_stays(name: str):
    before = FEW.copy()
    first, again, other = corrupt(FEW, name, 3), corrupt(FEW, name, 3), corrupt(FEW, name, 4)
    assert first.shape == FEW.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(FEW, before)
    assert not np.array_equal(first, FEW)
    random = name not in ("scale", "brightness", "stripe", "canny_edges")
    assert np.array_equal(first, other) == (not random)


# How many numbers Poisson noise draws depends on the pixels.
@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - {"shot_noise"}))
def test_an_image_is_not_mixed_with_its_neighbours(name: str):
    """In a stack of one image its copies stay apart from a bright picture in their midst."""
    stack = np.repeat(DIGITS[:1], 3, axis=0)
    lone = corrupt(stack, name)
    stack[1] = 255 - stack[1]
    np.testing.assert_array_equal(corrupt(stack, name)[[0, 2]], lone[[0, 2]])


def test_noise_has_the_strength_published():
    grey = np.full((200, 28, 28), 128, dtype=np.uint8)
    impulse = corrupt(grey, "impulse_noise")
    assert (impulse == 0).mean() == pytest.approx(0.085, abs=0.005)
    assert (impulse == 255).mean() == pytest.approx(0.085, abs=0.005)
    shot = corrupt(grey, "shot_noise")
    assert set(np.unique(shot)) == {0, 85, 170, 255}
    assert (shot == 0).mean() == pytest.approx(np.exp(-3 * 128 / 255), abs=0.01)


def test_geometry_is_about_the_centre():
    """Bars that a turn, a lean, a shrinking or a shift leaves where arithmetic says."""
    bar = BLACK[:20].copy()
    bar[:, 4:24, 13:15] = 255
    rows = np.arange(28)
    small = corrupt(bar, "scale")[0].max(axis=1) > 127
    assert rows[small].tolist() == list(range(7, 21))  # 20 * 0.7 = 14 rows
    for name in ("shear", "rotate"):
        leaning = corrupt(bar, name)
        assert leaning[:, 13:15, 13:15].min() > 127
        # At 8 rows from the middle the bar is 8 * tan(0.4) = 3.4 columns aside, to either side.
        top = np.abs(leaning[:, 5].argmax(axis=1) - 13.5)
        assert np.all(np.abs(top - 8.5 * np.tan(0.4)) <= 1.5)
        assert len({image.tobytes() for image in leaning}) == 2
    moved = corrupt(bar, "translate")
    assert len({image.tobytes() for image in moved}) == 4
    np.testing.assert_array_equal(moved.sum(axis=(1, 2)), bar.sum(axis=(1, 2)))


def test_pixelwise_ones():
    np.testing.assert_array_equal(corrupt(BLACK, "brightness"), np.full_like(BLACK, 127))
    striped = corrupt(BLACK, "stripe")
    assert np.all(striped[:, :, :7] == 255)
    assert np.all(striped[:, :, 21:] == 255)
    assert np.all(striped[:, :, 7:21] == 0)


def test_lines_are_drawn():
    dotted = corrupt(BLACK, "dotted_line")
    columns = np.flatnonzero(dotted.any(axis=(0, 1)))
    assert columns.tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]
    zigzag = corrupt(BLACK, "zigzag")
    assert zigzag.any(axis=(1, 2)).all()
    inked = zigzag[zigzag.any(axis=2).sum(axis=1) > 4]
    assert len(inked) > 40


def test_motion_blur_keeps_the_light_and_trails_sideways():
    dot = BLACK.copy()
    dot[:, 14, 14] = 255
    blurred = corrupt(dot, "motion_blur").astype(float)
    rows, columns = (blurred.any(axis=axis).sum(axis=1) for axis in (2, 1))
    assert np.all(columns > 5)
    assert np.all(columns >= rows)


def test_fog_and_spatter_cover():
    fog = corrupt(FEW, "fog")
    assert 60 < fog.mean() < 140  # clouds of mean 1/2 at three quarters of the range
    assert fog.reshape(len(fog), -1).std(axis=1).min() > 5
    mud = corrupt(BLACK, "spatter")
    assert 55 <= mud.max() <= 63
    assert 0.05 < (mud > 40).mean() < 0.5


def test_canny_leaves_outlines():
    square = BLACK[:1].copy()
    square[:, 8:20, 8:20] = 255
    edges = corrupt(square, "canny_edges")[0]
    assert set(np.unique(edges)) == {0, 255}
    assert not edges[10:18, 10:18].any()
    assert not edges[:6].any()
    assert edges[8:20].any(axis=1).all()
    assert edges[:, 8:20].any(axis=0).all()


def test_other_sizes_and_names_are_refused():
    with pytest.raises(ValueError, match="28"):
        corrupt(np.zeros((1, 8, 8), dtype=np.uint8), "fog")
    with pytest.raises(KeyError):
        corrupt(FEW, "drizzle")


def test_accuracies_are_counted_on_both_ways_in():
    data = Labelled(DIGITS[:50, None], LABELS[:50])
    seen = []

    def knows_all(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return data.labels

    def says_seven(images: np.ndarray) -> np.ndarray:
        return np.full(len(images), 7)

    readers = {"oracle": knows_all, "stubborn": says_seven}
    measured = dict(accuracies(readers, data, SPEC))
    assert list(measured) == list(CORRUPTIONS)
    share = float((data.labels == 7).mean())
    for row in measured.values():
        assert row["oracle"] == Accuracy(1.0, 1.0)
        assert row["stubborn"] == Accuracy(share, share)
    raw = corrupt(data.inputs[:, 0], "shot_noise")
    np.testing.assert_array_equal(seen[1], raw[:, None])
    np.testing.assert_array_equal(seen[0], prepare_all(raw, SPEC))
    lines = table(measured).splitlines()
    assert lines[-2].split() == ["mean", "100.00%", "100.00%", f"{share:.2%}", f"{share:.2%}"]
