"""What goes wrong by no fault of the code."""


class UserError(Exception):
    """Something that the user can mend; the message is a sentence that says what."""
