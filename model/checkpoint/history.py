"""What is noted of each epoch of a training run."""

from model.checkpoint.config import Frozen


class Epoch(Frozen):
    """Figures of one epoch; losses in nats, accuracies in [0, 1]."""

    epoch: int  # from 1
    train_loss: float  # with augmentation and smoothed labels
    train_accuracy: float  # with augmentation
    validation_loss: float  # of the averaged weights
    validation_accuracy: float
    seconds: float
