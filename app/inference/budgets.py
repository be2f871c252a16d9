"""What the requests of one worker may hold all together, taken before it is spent."""

from collections.abc import Callable, Iterator, Mapping

from app.settings import Settings


class BudgetError(Exception):
    """The requests under way have taken all there is."""


class UploadsFullError(BudgetError):
    """There is no room for more bytes."""


class DecodersFullError(BudgetError):
    """There is no room for more pixels."""


class Budget:
    """An amount that requests take from and give back.

    Args:
        limit: of what is taken at a time.
        fair_share: that a request may take, whatever the others hold.
        error: raised where there is no more, with this message.

    Attributes:
        taken: now.
        on_change: called with what is taken.
    """

    def __init__(self, limit: int, fair_share: int, error: BudgetError) -> None:
        self.limit = limit
        self.taken = 0
        self.on_change: Callable[[int], None] = lambda taken: None
        self._fair_share = fair_share
        self._error = error

    def take(self, amount: int, so_far: int) -> None:
        """Takes more for a request, which gives it back even where this fails.

        Args:
            amount: more.
            so_far: that the request has taken, with these.

        Raises:
            BudgetError: there is not so much.
        """
        self.taken += amount
        self.on_change(self.taken)
        if self.taken > self.limit and so_far > self._fair_share:
            raise type(self._error)(*self._error.args)

    def give_back(self, amount: int) -> None:
        """Gives back what a request has taken."""
        self.taken -= amount
        self.on_change(self.taken)


class Budgets(Mapping[str, Budget]):
    """The budgets of one worker by name.

    Attributes:
        upload_bytes: of bodies that are read and not answered, as they came and inflated.
        pending_pixels: of files that are decoded, or wait to be.
    """

    def __init__(self, settings: Settings) -> None:
        full = UploadsFullError("the uploads under way take all room")
        self.upload_bytes = Budget(settings.max_upload_bytes, 64 * 1024, full)
        busy = DecodersFullError("as many pixels wait for a decoder as may")
        self.pending_pixels = Budget(settings.max_pending_pixels, 1_000_000, busy)

    def __getitem__(self, name: str) -> Budget:
        budget: Budget = vars(self)[name]
        return budget

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))
