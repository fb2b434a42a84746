"""Install torch into the running interpreter's environment, so that a machine without a GPU never gets CUDA packages.

Which wheel the name `torch` means depends on the package index. Without a GPU this asks pip what it *would* install,
without downloading it, and turns to PyTorch's own index of CPU builds where that would be a CUDA build; either way
nothing is installed beside torch itself, because all that a CPU build imports is in `requirements.lock`. With a GPU,
torch is installed with everything it asks for. `make setup` calls it.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys

CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # https://pytorch.org/get-started/locally/
NOWHERE = """No CPU build of torch {version} was found, neither on pip's configured indexes nor at {index}.
If this machine reaches packages through a mirror, name one that carries CPU builds of torch:
    pip config set global.extra-index-url URL"""
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
ADVICE = """torch {version} here is a build for CUDA {cuda}, but this machine shows no GPU.
Such a build pulls gigabytes of packages that cannot be used here. Get the CPU build instead:
    {python} -m pip uninstall -y torch
    {python} -m pip install --no-deps --index-url {index} torch=={version}
or point pip's own configuration (pip config set global.extra-index-url URL) at an index that carries it, then run
`make setup` again."""


def main() -> int:
    """Install the asked version unless it is there already, and check what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="for example 2.13.0")
    parser.add_argument("--cpu-index", default=CPU_INDEX, help="index of CPU builds, used only where pip finds none")
    asked = parser.parse_args()
    if has_gpu():
        return subprocess.call([*PIP, "install", "--quiet", f"torch=={asked.version}"])
    if installed_build() != (asked.version, None):
        chosen = would_install(asked.version)
        source = [] if is_cpu_build(chosen) else ["--index-url", asked.cpu_index]
        print(f"torch {asked.version}: CPU build from {'PyTorch' if source else 'the configured index'}", flush=True)
        done = subprocess.call([*PIP, "install", "--quiet", "--no-deps", *source, f"torch=={asked.version}"])
        if done != 0:
            print(NOWHERE.format(version=asked.version, index=asked.cpu_index), file=sys.stderr)
            return done
    found = installed_build()
    if found is None:
        print("torch was installed but does not import; run `make clean setup`", file=sys.stderr)
        return 1
    version, cuda = found
    if cuda is not None:
        print(ADVICE.format(version=version, cuda=cuda, python=sys.executable, index=asked.cpu_index), file=sys.stderr)
        return 1
    return 0


def has_gpu() -> bool:
    """Tell whether this machine has an NVIDIA GPU with a working driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=60)
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def installed_build() -> tuple[str, str | None] | None:
    """Return version and CUDA version of the torch in this environment, None where there is none that works.

    Read from torch's own version file, because importing torch needs packages that come only after it.
    """
    code = (
        "import importlib.util, pathlib, runpy; s = importlib.util.find_spec('torch'); "
        "v = runpy.run_path(str(pathlib.Path(s.origin).parent / 'version.py')); "
        "print(v['__version__'].split('+')[0], v['cuda'])"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    if asked.returncode != 0:
        return None
    version, cuda = asked.stdout.split()
    return version, None if cuda == "None" else cuda


def would_install(version: str) -> str:
    """Return the URL or path of the wheel that pip's configured indexes would give; "" when they have none."""
    command = [*PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-"]
    asked = subprocess.run([*command, f"torch=={version}"], capture_output=True, text=True, check=False, timeout=600)
    if asked.returncode != 0:
        return ""
    report = json.loads(asked.stdout)
    return str(report["install"][0]["download_info"]["url"])


def is_cpu_build(wheel: str) -> bool:
    """Tell from a wheel's name whether it is a build without CUDA; on macOS every build is."""
    if sys.platform == "darwin" and wheel:
        return True
    name = wheel.rsplit("/", 1)[-1].replace("%2B", "+")
    return "+cpu" in name and platform.machine() in name


if __name__ == "__main__":
    sys.exit(main())
