"""The caller's own bucket: which policies are taken, what is sent, and what a refusal says."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.s3 import serving_bucket

from forestay.chance import SystemChance
from forestay.clock import SystemClock
from forestay.media.bucket import Bucket, BucketLimits, UploadFailed
from forestay.media.upload_policy import Form, UploadPolicy, form_for, parse_upload_policy

URL = "https://bucket.s3.eu-central-1.amazonaws.com/"
FIELDS: Mapping[str, object] = {
    "key": "out/${filename}",
    "policy": "eyJ9",
    "x-amz-signature": "abc",
    "success_action_status": 201,
    "x-amz-meta-final": True,
}


def text(url: object = URL, **changed: object) -> str:
    """Write a policy; a field that is None is left out."""
    fields = {name: value for name, value in {**FIELDS, **changed}.items() if value is not None}
    return json.dumps({"url": url, "fields": fields})


def read(said: str, *, allow_private: bool = False) -> UploadPolicy:
    """Read a policy that must be good."""
    policy = parse_upload_policy(said, allow_private=allow_private)
    assert isinstance(policy, UploadPolicy), policy
    return policy


def test_what_s3s_clients_sign_is_taken_as_it_is() -> None:
    """Scalars are written as JSON writes them, since a signed value must not change; order stays."""
    assert read(text()).fields == (
        ("key", "out/${filename}"),
        ("policy", "eyJ9"),
        ("x-amz-signature", "abc"),
        ("success_action_status", "201"),
        ("x-amz-meta-final", "true"),
    )
    assert read(text("https://s3.example.com/bucket")).url == "https://s3.example.com/bucket"
    assert read(text("http://127.0.0.1:9000/bucket"), allow_private=True).url.startswith("http://127")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("{" * 5000, "must be a JSON object"),
        ('{"url": "https://b.example/"}', "must be a JSON object"),
        ('{"url": 5, "fields": {}}', "must be a JSON object"),
        (text(padding="x" * 20_000), "16384"),
        (text("http://bucket.example/"), "must be an https URL"),
        (text("https://169.254.169.254/"), "cannot be called"),
        (text("https://localhost/"), "cannot be called"),
        (text("https://[::ffff:10.0.0.1]/"), "cannot be called"),
        (text("https://user@bucket.example/"), "cannot be called"),
        (text("https://bucket.example:22/"), "cannot be called"),
        (text("https://bucket.example/?x=1"), "neither query nor fragment"),
        (text("https://bucket.example/#x"), "neither query nor fragment"),
        (text("https://bucket.example/a/../b"), "path segments"),
        (text("https://bucket.example/a/%2e%2e/b"), "path segments"),
        (text("https://bucket.example//a"), "path segments"),
        (text('https://bucket.example/"'), "plain ASCII"),
        (text(key=None), "one field `key`"),
        (text(Key="x/${filename}"), "one field `key`"),
        (text(key="same-for-all"), "${filename}"),
        (text(key="/${filename}"), "must not begin with"),
        (text(key="a/../${filename}"), "must not begin with"),
        (text(key=["${filename}"]), "fields.key must be a text"),
        (text(file="x"), "not the name of a form field"),
        (text(**{'a"; filename="x': "y"}), "not the name of a form field"),
        (text(**{"a\r\nb": "y"}), "not the name of a form field"),
        (text(acl="a\r\nb"), "fields.acl must be a text"),
        (text(acl={"a": "b"}), "fields.acl must be a text"),
        (text(acl=[["a"]]), "fields.acl must be a text"),
        (text(acl="\ud800"), "must be a"),
        (text(**{"content-type": "a/b", "Content-Type": "a/b"}), "at most one Content-Type"),
        (text(**{f"f{number}": "x" for number in range(70)}), "more than 64 fields"),
    ],
)
def test_a_policy_that_cannot_be_honoured_says_why(said: str, words: str) -> None:
    """Its form, its URL, its key, its fields."""
    policy = parse_upload_policy(said, allow_private=False)
    assert isinstance(policy, str)
    assert words in policy


def test_two_files_of_one_policy_never_share_a_key() -> None:
    """What is unique goes into the name; the URL names the object that was stored."""
    form = form_for(read(text()), "a b.png", "image/png", "u1")
    assert isinstance(form, Form)
    assert ("key", "out/u1-a b.png") in form.fields
    assert ("Content-Type", "image/png") in form.fields
    assert form.access_url == f"{URL}out/u1-a%20b.png"


def test_a_signed_content_type_binds() -> None:
    """S3 would answer an opaque 403; the caller reads here what does not fit."""
    policy = read(text(**{"Content-Type": "image/jpeg"}))
    assert isinstance(form_for(policy, "a.jpg", "image/jpeg", "u"), Form)
    assert "signed for files of type 'image/jpeg'" in str(form_for(policy, "a.png", "image/png", "u"))


@given(
    st.text(max_size=300) | st.builds(lambda url, key: text(url, key=key), st.text(max_size=60), st.text(max_size=60))
)
def test_any_text_is_a_policy_or_a_reason(said: str) -> None:
    """Whatever a header holds."""
    policy = parse_upload_policy(said, allow_private=False)
    if isinstance(policy, UploadPolicy):
        form = form_for(policy, "a.png", "image/png", "u")
        assert isinstance(form, Form)
        assert form.access_url.isascii()
        assert '"' not in form.access_url


@contextmanager
def a_file(data: bytes) -> Iterator[IO[bytes]]:
    """Hold a real file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield cast("IO[bytes]", file)


def sender(**limits: float) -> Bucket:
    """Return a sender that may call loopback."""
    made = BucketLimits(limits.get("total_seconds", 10.0), int(limits.get("tries", 3)))
    return Bucket(SystemClock(), SystemChance(), allow_private=True, limits=made)


async def test_a_file_lands_in_the_bucket_byte_for_byte() -> None:
    """As a form that S3 takes: signed fields first, the file last, with a length."""
    data = bytes(range(256)) * 3_000
    async with serving_bucket() as bucket:
        policy = read(text(bucket.url), allow_private=True)
        with a_file(data) as file:
            url = await sender().send(policy, file, "a.png", "image/png")
    (stored,) = bucket.objects.values()
    assert url == f"{bucket.url}/{stored.key}"
    assert (stored.data, stored.content_type) == (data, "image/png")
    assert stored.fields["x-amz-signature"] == "abc"


async def test_what_may_pass_is_tried_again_and_what_may_not_is_told_at_once() -> None:
    """503 twice and then stored; a 403 is final, and the bucket's own words are nobody's business."""
    async with serving_bucket() as bucket:
        policy = read(text(bucket.url), allow_private=True)
        with a_file(b"x") as file:
            bucket.answers = [503, 429]
            await sender().send(policy, file, "a.png", "image/png")
            bucket.answers = [403, 204]
            with pytest.raises(UploadFailed, match="answered 403") as failed:
                await sender().send(policy, file, "a.png", "image/png")
            assert bucket.answers == [204]
            bucket.answers = [500, 500, 500]
            with pytest.raises(UploadFailed, match="answered 500"):
                await sender().send(policy, file, "a.png", "image/png")
    assert "Secret" not in str(failed.value)
    assert "bucket/" not in str(failed.value)


async def test_a_redirect_of_the_bucket_is_not_followed() -> None:
    """303 says that the object is stored; where it points is of no interest."""
    async with serving_bucket() as bucket:
        bucket.answers, bucket.location = [303], "http://169.254.169.254/"
        with a_file(b"x") as file:
            await sender().send(read(text(bucket.url), allow_private=True), file, "a.png", "image/png")
        assert len(bucket.objects) == 1
        bucket.answers = [301]
        with a_file(b"x") as file, pytest.raises(UploadFailed, match="answered 301"):
            await sender().send(read(text(bucket.url), allow_private=True), file, "a.png", "image/png")


async def test_a_policy_is_judged_again_when_it_is_used() -> None:
    """A name that has become private since the submit is not called."""
    policy = read(text("http://127.0.0.1:65000/bucket"), allow_private=True)
    with a_file(b"x") as file, pytest.raises(UploadFailed, match="cannot be called"):
        await Bucket(SystemClock(), SystemChance()).send(policy, file, "a.png", "image/png")


async def test_a_bucket_that_does_not_answer_is_given_up() -> None:
    """The time covers every try."""
    policy = read(text("http://127.0.0.1:65000/bucket"), allow_private=True)
    with a_file(b"x") as file, pytest.raises(UploadFailed, match="does not answer"):
        await sender(tries=1).send(policy, file, "a.png", "image/png")
