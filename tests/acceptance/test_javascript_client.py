"""The unmodified, published JavaScript client against real processes, in both of its official ways to another host."""

import pytest
from tests.acceptance.conftest import Acceptance

pytestmark = pytest.mark.node
MODES = ["middleware", "proxy"]


@pytest.mark.parametrize("mode", MODES)
def test_the_queue_by_hand(mode: str, acceptance: Acceptance) -> None:
    """queue.submit, queue.status, queue.result."""
    program = """
    const { request_id, status } = await fal.queue.submit("forestay/echo", { input: { text: "hello" } });
    let seen = [status];
    for (;;) {
      const now = await fal.queue.status("forestay/echo", { requestId: request_id, logs: true });
      seen.push(now.status);
      if (now.status === "COMPLETED") break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const result = await fal.queue.result("forestay/echo", { requestId: request_id });
    answer({ seen, text: result.data.text, same: result.requestId === request_id });
    """
    said = acceptance.javascript(program, mode)
    assert said["seen"][0] == "IN_QUEUE"
    assert said["seen"][-1] == "COMPLETED"
    assert (said["text"], said["same"]) == ("hello", True)


@pytest.mark.parametrize("mode", MODES)
def test_the_status_stream_brings_each_log_line_once(mode: str, acceptance: Acceptance) -> None:
    """streamStatus: the client adds the logs of all events up, so an event carries only new lines."""
    program = """
    const { request_id } = await fal.queue.submit("forestay/echo", { input: { log_lines: 6, sleep_seconds: 0.6 } });
    const stream = await fal.queue.streamStatus("forestay/echo", { requestId: request_id, logs: true });
    const lines = [], seen = [];
    stream.on("data", (event) => {
      seen.push(event.status);
      for (const line of event.logs ?? []) if (line.message.startsWith("echo line")) lines.push(line.message);
    });
    await stream.done();
    answer({ lines, seen });
    """
    said = acceptance.javascript(program, mode)
    assert said["lines"] == [f"echo line {number}/6" for number in range(1, 7)]
    assert said["seen"][-1] == "COMPLETED"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["polling", "streaming"])
def test_subscribe(mode: str, how: str, acceptance: Acceptance) -> None:
    """Subscribe in both of its modes, with updates on the way."""
    program = """
    const updates = [];
    const result = await fal.subscribe("forestay/echo", {
      input: { text: "subscribed", sleep_seconds: 0.3 }, mode: ARGUMENTS.how, logs: true,
      onQueueUpdate: (update) => updates.push(update.status),
    });
    answer({ text: result.data.text, last: updates.at(-1), id: result.requestId });
    """
    said = acceptance.javascript(program, mode, how=how)
    assert (said["text"], said["last"]) == ("subscribed", "COMPLETED")
    assert said["id"]


@pytest.mark.parametrize("mode", MODES)
def test_run_and_stream(mode: str, acceptance: Acceptance) -> None:
    """The two calls without a queue."""
    program = """
    const run = await fal.run("forestay/echo", { input: { text: "at once" } });
    const stream = await fal.stream("forestay/echo/stream", { input: { events: 3 } });
    const numbers = [];
    for await (const event of stream) numbers.push(event.number);
    const last = await stream.done();
    answer({ text: run.data.text, id: run.requestId, numbers, last: last.last });
    """
    said = acceptance.javascript(program, mode)
    assert said["id"]
    assert {**said, "id": ""} == {"text": "at once", "id": "", "numbers": [1, 2, 3], "last": True}


@pytest.mark.parametrize("mode", MODES)
def test_cancel(mode: str, acceptance: Acceptance) -> None:
    """A running request ends; its result is an error that the client understands."""
    program = """
    const { request_id } = await fal.queue.submit("forestay/echo", { input: { sleep_seconds: 20 } });
    const status = () => fal.queue.status("forestay/echo", { requestId: request_id });
    while ((await status()).status !== "IN_PROGRESS") await new Promise((resolve) => setTimeout(resolve, 50));
    const start = performance.now();
    await fal.queue.cancel("forestay/echo", { requestId: request_id });
    while ((await status()).status !== "COMPLETED") await new Promise((resolve) => setTimeout(resolve, 20));
    const seconds = (performance.now() - start) / 1000;
    answer({ seconds, error: await errorOf(() => fal.queue.result("forestay/echo", { requestId: request_id })) });
    """
    said = acceptance.javascript(program, mode)
    assert said["seconds"] < 1.0
    assert said["error"]["status"] == 499
    assert said["error"]["message"] == "Request was cancelled by the caller"  # HTTP has no phrase for 499


@pytest.mark.parametrize("mode", MODES)
def test_errors_arrive_as_the_clients_own_kinds(mode: str, acceptance: Acceptance) -> None:
    """422 becomes ValidationError with its detail; everything carries the request id."""
    program = """
    const invalid = await errorOf(() => fal.queue.submit("forestay/echo", { input: { sleep_seconds: "long" } }));
    const failed = await errorOf(() => fal.subscribe("forestay/echo", { input: { fail: "422" } }));
    const unknown = await errorOf(() => fal.queue.submit("forestay/nothing", { input: {} }));
    answer({ invalid, failed, unknown });
    """
    said = acceptance.javascript(program, mode)
    assert (said["invalid"]["name"], said["invalid"]["status"]) == ("ValidationError", 422)
    assert said["invalid"]["body"]["detail"][0]["loc"] == ["body", "sleep_seconds"]
    assert (said["failed"]["name"], said["failed"]["status"]) == ("ValidationError", 422)
    assert said["unknown"]["status"] == 404
    assert said["unknown"]["requestId"]


@pytest.mark.parametrize("mode", MODES)
def test_uploads(mode: str, acceptance: Acceptance) -> None:
    """storage.upload, and a Blob inside an input that is uploaded on the way."""
    program = """
    const bytes = new Uint8Array(100_000).map((_, index) => index % 251);
    const url = await fal.storage.upload(new Blob([bytes], { type: "application/octet-stream" }));
    const back = new Uint8Array(await (await fetch(direct(url))).arrayBuffer());
    const echoed = await fal.run("forestay/echo", { input: { text: new Blob(["inside"], { type: "text/plain" }) } });
    const inside = await (await fetch(direct(echoed.data.text))).text();
    answer({ same: back.length === bytes.length && back.every((byte, index) => byte === bytes[index]), inside });
    """
    assert acceptance.javascript(program, mode) == {"same": True, "inside": "inside"}


def test_a_large_upload_goes_in_parts(acceptance: Acceptance) -> None:
    """Above 90 MB the client uploads in parts; the whole comes back with its size and its last byte."""
    program = """
    const size = 91 * 1024 * 1024;
    const bytes = new Uint8Array(size);
    bytes[size - 1] = 77;
    const url = await fal.storage.upload(new Blob([bytes], { type: "application/octet-stream" }));
    const end = await fetch(direct(url), { headers: { Range: "bytes=-1" } });
    answer({ range: end.headers.get("content-range"), last: new Uint8Array(await end.arrayBuffer())[0] });
    """
    size = 91 * 1024 * 1024
    said = acceptance.javascript(program)
    assert said == {"range": f"bytes {size - 1}-{size - 1}/{size}", "last": 77}


def test_without_any_configuration_through_the_connect_proxy(acceptance: Acceptance) -> None:
    """Node's own proxy variables suffice, also for what goes past middleware: realtime, and streams with a token."""
    program = """
    const run = await fal.run("forestay/echo", { input: { text: "at once" } });
    const queued = await fal.subscribe("forestay/echo", { input: { text: "queued" } });
    const url = await fal.storage.upload(new Blob(["hello"], { type: "text/plain" }));
    const back = await (await fetch(url)).text();
    const numbers = [];
    const input = { events: 2 };
    for await (const event of await fal.stream("forestay/echo", { input, connectionMode: "client" }))
      numbers.push(event.number);
    const texts = await new Promise((resolve, reject) => {
      const got = [];
      const connection = fal.realtime.connect("forestay/echo", {
        connectionKey: "one",
        throttleInterval: 0,
        onResult: (result) => {
          got.push(result.text);
          if (got.length < 3) return connection.send({ text: `message ${got.length}` });
          connection.close();
          resolve(got);
        },
        onError: reject,
      });
      connection.send({ text: "message 0" });
    });
    answer({ run: run.data.text, queued: queued.data.text, host: new URL(url).host, back, numbers, texts });
    process.exit(0);
    """
    assert acceptance.javascript(program, "untouched") == {
        "run": "at once",
        "queued": "queued",
        "host": "v3.fal.media",
        "back": "hello",
        "numbers": [1, 2],
        "texts": ["message 0", "message 1", "message 2"],
    }
