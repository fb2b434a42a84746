"""Signatures: ours and the reference implementation's are the same, and whatever changes breaks them."""

from pathlib import Path

import model_signing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.artefacts import weights

from forestay.artefacts import signing
from forestay.artefacts.folder import measure_folder
from forestay.artefacts.manifest import FileEntry, Manifest, manifest_of
from forestay.artefacts.signatures import check_signatures
from forestay.artefacts.signing import NotSigned, Signed, TrustedKey, bundled, make_key_pair, read_public_key
from forestay.errors import UsageError

PRIVATE, PUBLIC = make_key_pair()
KEY = read_public_key(PUBLIC, "ours")
OTHER = read_public_key(make_key_pair()[1], "theirs")
ENTRIES = manifest_of([FileEntry(name, 1, digit * 64) for name, digit in (("a", "0"), ("b/c", "1"), ("d", "2"))])


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key on disk."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    path.write_text(PRIVATE)
    (path.parent / "key.pub").write_text(PUBLIC)
    return path


@pytest.fixture(scope="module")
def signature(key_file: Path) -> str:
    """One signature: they differ in length, and a search must meet the same text again."""
    return signing.sign(ENTRIES, "m", key_file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weights, with things that no bundle takes."""
    (tmp_path / "m" / "unet").mkdir(parents=True)
    (tmp_path / "m" / "unet" / "model.safetensors").write_bytes(weights.safetensors())
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / ".gitattributes").write_text("hidden")
    return tmp_path / "m"


def signed(folder: Path, key_file: Path) -> str:
    """Sign a folder as the command does."""
    text = signing.sign(measure_folder(folder)[0], folder.name, key_file)
    (folder / signing.SIGNATURE_NAME).write_text(text)
    return text


def seen(folder: Path) -> Manifest:
    """Return what a bundle takes of a folder."""
    return bundled(measure_folder(folder)[0])


def test_what_we_sign_the_reference_verifies(folder: Path, key_file: Path) -> None:
    """OpenSSF's own verifier accepts our signature over the folder on disk."""
    signed(folder, key_file)
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key_file.with_name("key.pub"))
    verifier.verify(folder, folder / signing.SIGNATURE_NAME)


def test_what_the_reference_signs_we_verify(folder: Path, key_file: Path) -> None:
    """And its digests are ours."""
    target = folder / signing.SIGNATURE_NAME
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[target], ignore_git_paths=True)
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key_file)
    signer.set_hashing_config(hashing).sign(folder, target)
    result = signing.verify(target.read_text(), seen(folder), [OTHER, KEY])
    assert result == Signed("ours", frozenset({"config.json", "unet/model.safetensors"}))


@pytest.mark.threat("ML06:2023", "AML.T0010")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "config.json").write_text("{ }"), "config.json was altered"),
        (lambda folder: (folder / "unet" / "more.safetensors").write_text(""), "unet/more.safetensors was added"),
        (lambda folder: (folder / "unet" / "model.safetensors").unlink(), "unet/model.safetensors is missing"),
    ],
)
def test_a_change_after_signing_is_named(change: object, told: str, folder: Path, key_file: Path) -> None:
    """One byte more, one file more, one file less."""
    text = signed(folder, key_file)
    change(folder)  # type: ignore[operator]
    result = signing.verify(text, seen(folder), [KEY])
    assert isinstance(result, NotSigned)
    assert told in result.reason
    assert not result.unknown_key


def test_a_key_that_nobody_trusts_is_told_apart(folder: Path, key_file: Path) -> None:
    """The signature may hold, but it counts as none."""
    result = signing.verify(signed(folder, key_file), seen(folder), [OTHER])
    assert isinstance(result, NotSigned)
    assert result.unknown_key


@pytest.mark.threat("ML06:2023", "AML.T0010")
def test_a_trusted_name_over_another_key_does_not_verify(folder: Path, key_file: Path) -> None:
    """The hint in a signature is the signer's word: it finds the key, and the key must hold."""
    text = signed(folder, key_file)
    liar = TrustedKey("ours", OTHER.public_key, KEY.fingerprint)
    result = signing.verify(text, seen(folder), [liar])
    assert isinstance(result, NotSigned)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_altered_signature_holds_for_more(data: st.DataObject, signature: str) -> None:
    """Change any character: it is refused, or it says exactly what it said before."""
    text = signature
    at = data.draw(st.integers(0, len(text) - 1))
    altered = text[:at] + data.draw(st.characters(max_codepoint=126)) + text[at + 1 :]
    result = signing.verify(altered, ENTRIES, [KEY])
    assert isinstance(result, NotSigned) or result == signing.verify(text, ENTRIES, [KEY])


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"verificationMaterial": {"publicKey": {"hint": 7}}}', "[" * 10_000]
)
def test_what_is_no_signature_is_said_to_be_none(text: str) -> None:
    """And breaks nothing."""
    assert isinstance(signing.verify(text, ENTRIES, [KEY]), NotSigned)


def test_a_signature_of_a_folder_covers_what_lies_below_it(folder: Path, key_file: Path) -> None:
    """A bundle may bring several, each over its own folder."""
    text = signed(folder, key_file)
    inside = seen(folder).files
    whole = manifest_of([FileEntry(f"weights/{item.name}", item.size_bytes, item.sha256) for item in inside])
    checked = check_signatures(whole, {"weights": text}, [KEY])
    assert [(item.folder, item.key) for item in checked.good] == [("weights", "ours")]
    assert checked.good[0].files == frozenset({"weights/config.json", "weights/unet/model.safetensors"})
    broken = check_signatures(whole, {"": text}, [KEY])
    assert [item.file for item in broken.broken] == ["model.sig"]


@pytest.mark.parametrize("text", [PRIVATE, "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_only_a_public_key_of_a_known_curve_is_trusted(text: str) -> None:
    """A private key is not taken, so that nobody sends it by mistake."""
    with pytest.raises(UsageError):
        read_public_key(text, "x")
