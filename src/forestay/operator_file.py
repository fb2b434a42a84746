"""A YAML file that an operator names in a setting, read into a declared shape; each fault says the mend.

Decides nothing of what stands in it. Called by the readers of providers of detectors and of scorers.
"""

import pathlib
from typing import TypeVar, cast

import msgspec
import yaml

from forestay.errors import UsageError

T = TypeVar("T")


def read_operator_file(path: str, shape: type[T], variable: str, page: str) -> T:
    """Return the file as `shape`; raises UsageError with `variable`, the fault and the `page` that explains it."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        return msgspec.convert(cast("object", yaml.safe_load(text)), shape)
    except OSError as error:
        raise UsageError(variable, f"{path} cannot be read: {error.strerror}; give a YAML file") from None
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise UsageError(variable, f"{path}: {said}; see {page}") from None
