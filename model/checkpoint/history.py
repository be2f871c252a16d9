"""What is noted of each epoch of a training run."""

from pydantic import BaseModel, ConfigDict


class Epoch(BaseModel):
    """Figures of one epoch; losses in nats, accuracies in [0, 1]."""

    model_config = ConfigDict(frozen=True)

    epoch: int  # from 1
    train_loss: float  # with augmentation and smoothed labels
    train_accuracy: float  # with augmentation
    validation_loss: float  # of the averaged weights
    validation_accuracy: float
    seconds: float
