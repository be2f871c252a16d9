"""The network that parts touching digits: its NumPy form against PyTorch's, and its lessons."""

import numpy as np
import pytest
import torch

from model.checkpoint.folder import Checkpoint
from model.data.labelled import Labelled
from model.modalities.digits.reading.extents import DIGIT, MARGIN, STEP, ExtentNetwork
from model.modalities.digits.reading.learned import EXTENTS_FILE
from model.modalities.digits.reading.marks import find_marks
from model.modalities.digits.synthetic.strips import STYLES, write
from model.modalities.digits.training import extents as train_extents
from model.modalities.digits.training.extents import ExtentNet, batch, lines_of, losses, train
from tests.digits import load_digits

IMAGES, LABELS = load_digits()
DIGITS = Labelled(IMAGES[:, None], LABELS)


def test_numpy_computes_what_pytorch_does():
    torch.manual_seed(0)
    net = ExtentNet()
    for layer in net.modules():  # what training would have made of them
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 2)
    net.eval()
    coverage = np.random.default_rng(0).integers(0, 256, (DIGIT, 53), dtype=np.uint8)
    ends, classes = ExtentNetwork(net.arrays()).look(coverage, DIGIT)
    padding = [(MARGIN, MARGIN + -(size + 2 * MARGIN) % STEP) for size in coverage.shape]
    ink = torch.from_numpy(np.pad(coverage, padding)).float()[None, None] / 255
    with torch.inference_mode():
        reaches, names = net(ink)
    own = slice(MARGIN, MARGIN + coverage.shape[0]), slice(MARGIN, MARGIN + coverage.shape[1])
    expected = reaches[0].numpy()[:, *own] * DIGIT + np.arange(coverage.shape[1]) + 0.5
    assert np.abs(ends - expected).max() < 0.05  # the arrays are float16
    scores = names.log_softmax(dim=1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert np.abs(classes - scores[0].numpy()[:, *own]).max() < 0.01


def test_the_shipped_network_parts_digits_that_touch(checkpoint: Checkpoint):
    """Most pixels vote for the middle of their own digit, not of the next one."""
    network = ExtentNetwork.from_npz(checkpoint.parts[EXTENTS_FILE])
    random = np.random.default_rng(1)
    right = total = 0
    for _ in range(8):
        strip = write(DIGITS, 4, STYLES["touching"], random)
        for example in lines_of(strip):
            ends, _ = network.look(example.coverage, DIGIT)
            inked = (example.owner > 0) & (example.coverage > 128)
            middles = ends.mean(axis=0)[inked]
            nearest = np.abs(middles[:, None] - example.ends[1:].mean(axis=1)).argmin(axis=1) + 1
            right += int((nearest == example.owner[inked]).sum())
            total += int(inked.sum())
    assert right / total > 0.93


def test_training_learns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_extents, "BATCH_SIZE", 3)
    random = np.random.default_rng(2)
    strips = (write(DIGITS, 2, STYLES["touching"], random) for _ in range(3))
    examples = [example for strip in strips for example in lines_of(strip)]
    made = batch(examples, random)
    torch.manual_seed(0)
    untaught = ExtentNet().eval()
    taught, _ = train(examples, examples, 30, seed=0)
    with torch.inference_mode():
        before, after = (float(losses(net, made)[0]) for net in (untaught, taught))
    assert after < before


def test_windows_hold_what_the_strip_says():
    strip = write(DIGITS, 5, STYLES["separated"], np.random.default_rng(3))
    (line,) = find_marks(strip.picture, strip.picture.size).lines
    (example,) = lines_of(strip)
    assert len(line.marks) >= 5
    coverage, reaches, inked, classes = batch([example], np.random.default_rng(0))
    chosen = inked[0, 0, ::2, ::2] > 0
    assert set(classes[0][chosen].tolist()) <= set(map(int, strip.text))
    assert (coverage[0, 0][inked[0, 0] > 0] > 0).all()
    left, right = reaches[0][:, inked[0, 0] > 0]
    assert (left < 0.1).all()
    assert (right > -0.1).all()
