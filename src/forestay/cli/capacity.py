"""`forestay capacity`: what a request is predicted to cost, and what has been learned of each model."""

import json as formats
from typing import Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Show what requests are predicted to cost, and from what that is known.")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="The model, owner/alias.")],
    body: Annotated[str, typer.Option("--input", help="The input, as JSON.")] = "{}",
    endpoint: Annotated[str, typer.Option(help="The endpoint's path.")] = "/",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Predict the device-seconds of a request, without running it.

    Example: forestay capacity predict forestay/digits --input '{"prompt": "a red seven", "num_inference_steps": 20}'
    """
    try:
        value: object = formats.loads(body)
    except ValueError as error:
        raise UsageError("--input", f'is not JSON ({error}); write an object such as \'{{"prompt": "a"}}\'') from None
    asked = {"model": model, "endpoint": endpoint, "input": value}
    told = cast("dict[str, object]", connect().post("/admin/capacity/predict", asked))
    if json:
        print_json(told)
        return
    low, seconds, high = (_number(told[name]) for name in ("low_seconds", "predicted_seconds", "high_seconds"))
    say(f"{seconds} device-seconds; nine in ten between {low} and {high}")
    features = cast("dict[str, float]", told["features"])
    say(f"features: {', '.join(f'{name} {value:g}' for name, value in features.items()) or 'none'}")
    say(f"revision: {told['revision_id']}")
    say(f"known from: {told['source']}")
    if told["price"] is not None:
        say(f"price: {_number(told['price'])}")


@app.command()
def models(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List what has been learned of each model's cost, newest first.

    Example: forestay capacity models
    """
    found = cast("dict[str, list[dict[str, object]]]", connect().get("/admin/capacity/models"))["models"]
    if json:
        print_json(found)
        return
    columns = ("model", "endpoint", "revision", "learned from", "usual seconds", "nine in ten", "updated")
    rows = [
        (
            item["model_id"],
            item["endpoint"],
            item["revision_id"],
            item["learned_from"],
            _number(item["usual_seconds"]),
            f"{_number(item['low_seconds'])} to {_number(item['high_seconds'])}",
            item["updated_at"],
        )
        for item in found
    ]
    print_table(columns, rows, empty="nothing has been learned yet; some requests must succeed first")


def _number(value: object) -> str:
    return f"{cast('float', value):.4g}"
