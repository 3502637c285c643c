"""The one error that means: what you gave cannot be used."""


class InputError(ValueError):
    """Data, a preset, an override or a file from outside that cannot be used.

    The message is one line that says what came, what is allowed and what to do next. The commands
    print it and exit with status 2; any other exception is a defect of ours and has its traceback.
    """
