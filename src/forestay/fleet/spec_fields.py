"""What the parts of a spec's file have in common: strict models, and texts with a shape that is explained in words.

Used by `spec_file` and `spec_artefacts` alone; pydantic is imported only where a file is read.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


class Strict(BaseModel):
    """A part of the file: no field that is not declared, each documented in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def shape(pattern: str, words: str) -> tuple[AfterValidator, object]:
    """Return what checks a text by `pattern` and explains it in words, and what publishes the pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": f"^({pattern})$"})


Line = Annotated[str, StringConstraints(min_length=1, max_length=200), *shape(r"[^\x00-\x1f\x7f]+", "write one line")]
