"""What readers of files share: numbers within stated bounds, and errors that fit one line."""

Range = tuple[float, float]


def require_within(config: object, **ranges: Range) -> None:
    """ValueError naming the first field outside its range, both ends of which belong to it.

    None is within every range, and NaN within none.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            raise ValueError(
                f"{type(config).__name__}.{name}={value!r:.40} must lie within {low:,} and {high:,}"
            )


def one_line(error: object, most: int = 200) -> str:
    """What a library says of a file, without its line breaks and unprintable characters.

    >>> one_line("bad byte \\x07\\n in line 2")
    'bad byte \\\\x07 in line 2'
    """
    words = " ".join(str(error).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words[:most])
