"""Errors as one line of text."""


def reason(error: BaseException) -> str:
    """What an error says, in one line; with its type where the text alone says too little, as that of a KeyError."""
    if isinstance(error, OSError) and error.strerror and type(error).__str__ is OSError.__str__:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).splitlines())
    return text if text and isinstance(error, ValueError | TypeError | RuntimeError | OSError) else repr(error)
