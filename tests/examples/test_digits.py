"""The digits app over HTTP: what it draws, repeats, restyles, edits, streams, stops and refuses."""

import threading
from types import ModuleType
from typing import Any

import numpy as np

from .conftest import Hosted, bytes_of, httpx, picture_of

NATIVE = {"image_size": {"width": 32, "height": 32}, "sync_mode": True}


def pixels_of(digits: Hosted, path: str = "/", **body: Any) -> np.ndarray[Any, Any]:
    """Return the first picture as `[32, 32, 3] uint8`."""
    return np.asarray(picture_of(digits.made(path, NATIVE | body)["images"][0]))


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(digits: Hosted) -> None:
    """Repeatable for the same seed, not for another."""
    first = pixels_of(digits, prompt="a red seven", seed=5)
    assert np.array_equal(first, pixels_of(digits, prompt="a red seven", seed=5))
    assert not np.array_equal(first, pixels_of(digits, prompt="a red seven", seed=6))


def test_a_request_without_a_seed_says_which_seed_would_repeat_it(digits: Hosted) -> None:
    """The answer carries the seed that was drawn."""
    made = digits.made("/", NATIVE | {"prompt": "a blue two"})
    again = pixels_of(digits, prompt="a blue two", seed=made["seed"])
    assert np.array_equal(np.asarray(picture_of(made["images"][0])), again)


def test_the_prompt_decides_digit_and_colour(digits: Hosted, digits_judge: ModuleType) -> None:
    """One picture of each digit in changing colours: nearly all are what was asked for."""
    colours = list(digits_judge.COLOURS)
    asked = [(digit, colours[digit % len(colours)]) for digit in range(10)]
    pictures = []
    for digit, colour in asked:
        prompt = f"a {colour} {digits_judge.WORDS[digit]} on a dark background"
        made = digits.made(
            "/", NATIVE | {"prompt": prompt, "seed": 100 + digit, "num_images": 2, "num_inference_steps": 8}
        )
        pictures += [np.asarray(picture_of(image)) for image in made["images"]]
    found = digits_judge.judge(pictures)
    assert sum(judged.digit == asked[number // 2][0] for number, judged in enumerate(found)) >= 18
    assert sum(judged.colour == asked[number // 2][1] for number, judged in enumerate(found)) >= 19


def test_short_prompts_work_as_well(digits: Hosted, digits_judge: ModuleType) -> None:
    """A bare word and a numeral decide the digit too."""
    prompts = [word if number % 2 else f"{number} in red" for number, word in enumerate(digits_judge.WORDS)]
    pictures = [pixels_of(digits, prompt=prompt, seed=3, num_inference_steps=8) for prompt in prompts]
    found = digits_judge.judge(pictures)
    assert sum(judged.digit == number for number, judged in enumerate(found)) >= 9


def test_many_pictures_are_the_pictures_of_consecutive_seeds(digits: Hosted) -> None:
    """Picture n of a request is about the picture that seed + n gives alone."""
    made = digits.made("/", NATIVE | {"prompt": "a green four", "seed": 40, "num_images": 3})
    second = np.asarray(picture_of(made["images"][1]), np.int16)
    alone = pixels_of(digits, prompt="a green four", seed=41).astype(np.int16)
    # A batch sums in another order than a single picture, so the last bit may differ.
    assert np.abs(second - alone).max() <= 2
    assert made["has_nsfw_concepts"] == [False] * 3


def test_a_style_changes_the_picture_and_does_not_leak_into_the_next_request(digits: Hosted) -> None:
    """Styles last for one request, to the pixel."""
    plain = pixels_of(digits, prompt="a red zero on a dark background", seed=9)
    for style in ("thick-strokes", "inverted-palette"):
        styled = pixels_of(digits, prompt="a red zero on a dark background", seed=9, loras=[{"path": style}])
        assert np.abs(styled.astype(int) - plain).mean() > 4
        assert np.array_equal(plain, pixels_of(digits, prompt="a red zero on a dark background", seed=9))


def test_each_style_does_what_its_name_says(digits: Hosted, digits_judge: ModuleType) -> None:
    """Thick strokes leave more ink; an inverted palette turns a dark background light."""
    body = {"prompt": "a red one on a dark background", "seed": 21}
    plain = pixels_of(digits, **body)
    thick = pixels_of(digits, **body, loras=[{"path": "thick-strokes"}])
    inverted = pixels_of(digits, **body, loras=[{"path": "inverted-palette"}])
    assert digits_judge.ink_of(thick).mean() > 1.15 * digits_judge.ink_of(plain).mean()
    assert digits_judge.background_of(plain) == "dark"
    assert digits_judge.background_of(inverted) == "light"


def test_an_unknown_style_is_refused_naming_the_field(digits: Hosted) -> None:
    """422 with the field's place, before anything is drawn."""
    for path in ("/", "/stream"):
        refused = digits.call(path, {"prompt": "seven", "loras": [{"path": "no-such-style"}]})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "loras"]


def test_inputs_out_of_bounds_are_refused_naming_the_field(digits: Hosted) -> None:
    """Each bounded field says so itself."""
    wrong: dict[str, Any] = {
        "num_inference_steps": 51, "guidance_scale": 21, "num_images": 9, "seed": -1, "output_format": "bmp",
    }  # fmt: skip
    for field, value in wrong.items():
        refused = digits.call("/", {"prompt": "seven", field: value})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", field]


def test_a_size_that_is_not_square_gets_more_background(digits: Hosted) -> None:
    """The picture has the size asked for, and its edges are background."""
    body = {"prompt": "a red five on a dark background", "seed": 2, "image_size": {"width": 300, "height": 100}}
    made = digits.made("/", body)["images"][0]
    picture = np.asarray(picture_of(made))
    assert picture.shape == (100, 300, 3)
    assert (made["width"], made["height"], made["content_type"]) == (300, 100, "image/png")
    assert picture[:, :60].std(axis=(0, 1)).max() < 1


def test_edit_redraws_the_given_picture_after_the_prompt(digits: Hosted, digits_judge: ModuleType) -> None:
    """A little strength keeps most of the picture; all of it draws what the prompt says."""
    source = digits.made("/", NATIVE | {"prompt": "a blue one on a light background", "seed": 8})["images"][0]
    start = np.asarray(picture_of(source)).astype(int)
    body = {"prompt": "a red three on a dark background", "seed": 8, "image_url": source["url"]}
    little = pixels_of(digits, "/edit", **body, strength=0.1).astype(int)
    much = pixels_of(digits, "/edit", **body, strength=1.0)
    assert 0 < np.abs(little - start).mean() < np.abs(much - start).mean()
    assert digits_judge.judge([much])[0].colour == "red"


def test_edit_refuses_what_is_no_picture_naming_the_field(digits: Hosted) -> None:
    """Wrong scheme, wrong content and nothing there are all the caller's to mend."""
    for url in (
        "ftp://example.invalid/a.png",
        "data:text/plain,hello",
        "http://127.0.0.1:9/a.png",
        "file:///etc/hosts",
    ):
        refused = digits.call("/edit", {"prompt": "seven", "image_url": url})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "image_url"]


def test_the_stream_shows_a_preview_of_each_step_and_ends_with_the_answer(digits: Hosted) -> None:
    """As many previews as steps, then the same pixels that `/` gives."""
    body = NATIVE | {"prompt": "a purple six", "seed": 12, "num_inference_steps": 6}
    *steps, last = digits.events("/stream", body)
    assert [(event["step"], event["total_steps"]) for event in steps] == [(n, 6) for n in range(1, 7)]
    assert {picture_of(event["images"][0]).size for event in steps} == {(64, 64)}
    assert bytes_of(last["images"][0]) == bytes_of(digits.made("/", body)["images"][0])


def test_a_running_request_can_be_cancelled_between_two_steps(digits: Hosted) -> None:
    """499 for the request that was running, and the next one is served as usual."""
    long = {"prompt": "a red seven", "num_inference_steps": 50, "num_images": 8}
    cancelled = digits.cancelled_while_running("/", long)
    assert cancelled.status_code == 499
    assert cancelled.json() == {"detail": "Request cancelled by the client."}
    assert digits.call("/", {"prompt": "seven"}).status_code == 200


def test_a_cancelled_stream_stops_within_a_step(digits: Hosted) -> None:
    """After the cancellation is known, the events end with the reason, long before the last step."""
    body = {"prompt": "a red seven", "num_inference_steps": 50, "num_images": 8}

    def cancel_at_once(event: dict[str, Any]) -> None:
        if event.get("step") == 1:
            assert digits.call("/stream/cancel", request_id="stream-to-cancel").json() == {"cancelled": True}

    events = digits.events("/stream", body, request_id="stream-to-cancel", on_event=cancel_at_once)
    assert events[-1] == {"error": {"status": 499, "detail": "Request cancelled by the client."}}
    assert len(events) < 15


def test_a_caller_who_leaves_a_stream_stops_the_work(digits: Hosted) -> None:
    """The log tells of a cancelled request, though nobody called `/stream/cancel`."""
    body = {"prompt": "a red seven", "num_inference_steps": 50, "num_images": 8}
    headers = {"x-fal-request-id": "left-alone"}
    with httpx.stream("POST", f"{digits.url}/stream", json=body, headers=headers, timeout=60.0) as answer:
        next(answer.iter_lines())
    lines: list[str] = []
    while not lines:
        threading.Event().wait(0.05)  # a busy wait would take the processor from the app
        lines = [line for line in digits.log().splitlines() if "left-alone" in line and "outcome=" in line]
    assert "outcome=cancelled" in lines[0]


def test_cancelling_what_does_not_run_says_so(digits: Hosted) -> None:
    """Late cancellations are harmless."""
    assert digits.call("/cancel", request_id="long-gone").json() == {"cancelled": False}


def test_each_request_is_one_line_of_log_without_its_prompt(digits: Hosted) -> None:
    """The line has the id and the outcome; words of the caller stay out."""
    digits.call("/", {"prompt": "a secret yellow eight"}, request_id="log-test")
    lines = [line for line in digits.log().splitlines() if "request_id=log-test" in line]
    assert len(lines) == 1
    assert "outcome=done" in lines[0]
    assert "secret" not in digits.log()
