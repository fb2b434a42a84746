"""LiteLLM's proxy with one pass-through endpoint, run by its own environment.

`gateway_litellm.py BACKEND PORT FOLDER`
"""

import os
import pathlib
import sys

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
CONFIG = """\
model_list: []
general_settings:
  pass_through_endpoints:
    - path: "/run/bench/echo"
      target: "{backend}/"
      headers: {{content-type: application/json}}
litellm_settings:
  drop_params: true
  telemetry: false
"""


def main() -> None:
    """Write the configuration and become the proxy."""
    backend, port, folder = sys.argv[1:4]
    config = pathlib.Path(folder) / "litellm.yaml"
    config.write_text(CONFIG.format(backend=backend))
    program = str(pathlib.Path(sys.executable).with_name("litellm"))
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", port, "--num_workers", "1"]
    environment = {
        **os.environ,
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
    }
    os.execve(program, [program, *arguments], environment)  # noqa: S606 - replaces this process, no shell


if __name__ == "__main__":
    main()
