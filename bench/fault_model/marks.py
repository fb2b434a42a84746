"""What marks an output of the model as harmful, for those that must know it without the model's own packages."""

MARK = "MARKER-52D1"  # stands for violence that nobody writes out
HARMFUL_EVERY = 10


def is_harmful(number: int) -> bool:
    """Tell whether the output of this number is a marked one."""
    return number % HARMFUL_EVERY == HARMFUL_EVERY - 1
