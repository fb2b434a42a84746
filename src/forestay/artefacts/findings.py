"""What can be wrong with a model's file: the kinds of flaw, where each lies, and how it is mended.

Values only. The readers of the formats make flaws, `examine` turns them into findings that name the file, `decide`
says which of them forbid the model. `docs/reference/artefacts.md` is generated from `MEANINGS`.
"""

import dataclasses
import enum
from collections.abc import Mapping


class FlawKind(enum.StrEnum):
    """What is wrong; the value is the word that answers, logs and metrics use."""

    UNKNOWN = "unknown_format"
    SUFFIX = "suffix"
    POLYGLOT = "polyglot"
    EXECUTABLE = "executable"
    ARCHIVE = "archive"
    PICKLE = "pickle"
    PICKLE_GLOBAL = "pickle_global"
    PICKLE_UNCLEAR = "pickle_unclear"
    CODE = "code_in_weights"
    HEADER = "header"
    BOUNDS = "bounds"
    LIMIT = "limit"
    TWICE = "named_twice"
    EXTERNAL = "external_data"
    OPERATOR = "operator"
    TEMPLATE = "template"
    NAME = "name"
    LINK = "link"
    ALTERED = "altered"
    ADDED = "added"
    MISSING = "missing"
    SIGNATURE = "signature"
    MOUNT = "mount"
    OPINION = "second_opinion"


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of flaw says, and what to do about it."""

    says: str
    mend: str


_CONVERT = "convert the weights to safetensors (safetensors.torch.save_file) where you trust them, and deploy that file"
_AGAIN = "fetch the file again from its source and compare its SHA-256; a whole file has none of this"

MEANINGS: Mapping[FlawKind, Meaning] = {
    FlawKind.UNKNOWN: Meaning(
        "Its bytes belong to no format that is admitted.",
        "put weights into safetensors, ONNX or GGUF, plain arrays into .npy; text is UTF-8; else leave the file out",
    ),
    FlawKind.SUFFIX: Meaning("Its name promises another format than its bytes hold.", _AGAIN),
    FlawKind.POLYGLOT: Meaning(
        "It is two formats at once, so that two readers see two different files.",
        "write the file again with one format's own tools",
    ),
    FlawKind.EXECUTABLE: Meaning(
        "It is a program, a library or compiled Python.",
        "build it from source in host.requirements, or leave it out",
    ),
    FlawKind.ARCHIVE: Meaning(
        "It is an archive or compressed, so what it holds is not seen.", "unpack it and deploy what it holds"
    ),
    FlawKind.PICKLE: Meaning(
        "It is a pickle: reading it runs what it names.",
        f"{_CONVERT}; or waive this file in artefacts.allow_pickle with a reason and an end date",
    ),
    FlawKind.PICKLE_GLOBAL: Meaning("It is a pickle that names something outside the allow-list. No waiver.", _CONVERT),
    FlawKind.PICKLE_UNCLEAR: Meaning(
        "It is a pickle that cannot be read with certainty (hidden, nested or broken opcodes). No waiver.", _CONVERT
    ),
    FlawKind.CODE: Meaning(
        "Its weights carry code (TorchScript, a Keras lambda, a graph of another framework).",
        "export plain weights, and keep the code in the app",
    ),
    FlawKind.HEADER: Meaning("Its header does not follow the format.", _AGAIN),
    FlawKind.BOUNDS: Meaning("What it declares does not fit the bytes that are there.", _AGAIN),
    FlawKind.LIMIT: Meaning("It exceeds a limit that no honest file comes near.", _AGAIN),
    FlawKind.TWICE: Meaning("It names the same thing twice, so that readers differ.", _AGAIN),
    FlawKind.EXTERNAL: Meaning(
        "An ONNX tensor lies in another file that is absent, too short, or outside the model's folder.",
        "save the model with external data beside it under a plain file name",
    ),
    FlawKind.OPERATOR: Meaning(
        "An ONNX node uses an operator that neither ONNX nor ONNX Runtime defines: it needs native code.",
        "export without custom operators, or put the function into the model",
    ),
    FlawKind.TEMPLATE: Meaning(
        "A chat template reaches into Python objects.", "take the template from the model's publisher, or write it anew"
    ),
    FlawKind.NAME: Meaning("A file's name is not plain.", "rename it: printable, relative, below its folder"),
    FlawKind.LINK: Meaning("It is a link or no plain file.", "put the file itself there"),
    FlawKind.ALTERED: Meaning("Its bytes are not those that were admitted or signed.", "deploy the model again"),
    FlawKind.ADDED: Meaning("It was not there when the model was admitted or signed.", "deploy the model again"),
    FlawKind.MISSING: Meaning("It was there when the model was admitted or signed.", "deploy the model again"),
    FlawKind.SIGNATURE: Meaning(
        "A signature is absent, broken, or of a key that is not trusted.",
        "sign with `forestay artefact sign`, and trust the key with `forestay artefact trust add`",
    ),
    FlawKind.MOUNT: Meaning(
        "A data mount is not declared, or its files are not those declared.",
        "put the output of `forestay artefact digest FOLDER` into artefacts.mounts",
    ),
    FlawKind.OPINION: Meaning(
        "A second reader saw something else than ours, or could not read it.",
        f"{_CONVERT}; a file that two readers see differently is not admitted",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Flaw:
    """One thing wrong with a file; `where` is an offset, a field or a member, fit for a person."""

    kind: FlawKind
    where: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """A flaw with the file that has it."""

    file: str
    kind: FlawKind
    where: str
    what: str

    def __str__(self) -> str:
        """Say file, place, flaw and mend in one line."""
        place = f" at {self.where}" if self.where else ""
        return f"{self.file}{place}: {self.kind}: {self.what}; {MEANINGS[self.kind].mend}"


def finding(file: str, flaw: Flaw) -> Finding:
    """Give a flaw its file."""
    return Finding(file, flaw.kind, flaw.where, flaw.what)


def shown(text: str, limit: int = 80) -> str:
    """Return an untrusted text fit for one line of a message: printable, quoted, cut."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return ascii(cut)
