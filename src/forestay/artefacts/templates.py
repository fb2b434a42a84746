"""Looks at chat templates (Jinja) for what no conversation needs: reaching into Python objects.

It decides by text alone and renders nothing. A template is run by whoever loads a tokenizer; outside a sandbox, one
attribute chain reaches the interpreter (CVE-2024-34359 was that). Used for GGUF metadata and tokenizer files.
"""

import re

_REACHES = re.compile(
    r"""[.\['"]\s*__\w              # dunder attributes, also in subscripts
      | ['"]_+['"]\s*[~+*]          # a dunder put together
      | \\x5f | \\137 | \\u005f      # an underscore in disguise
      | \|\s*attr\b                  # attr filter: attributes by text
      | \b(?:mro|func_globals|gi_frame|f_globals|f_builtins|cr_frame|tb_frame)\b
      | \b(?:popen|subprocess|importlib|sys\.modules|os\.system|getattr|setattr|eval|exec|compile)\s*[(.]
      | \b(?:cycler|joiner|namespace|lipsum|self|request|config)\s*\.\s*_
      | \{%-?\s*(?:include|import|from|extends)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def template_problem(text: str) -> str:
    """Say what in a template reaches beyond a conversation; empty when nothing does."""
    found = _REACHES.search(text)
    return f"holds {found[0][:40]!a}, which no conversation needs" if found else ""
