"""Which wheel of torch is taken for a CPU build, and what a lock of ours needs beside it."""

import importlib.metadata
import importlib.util
import platform
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = platform.machine()


@pytest.fixture(scope="module")
def install_torch() -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("install_torch", ROOT / "tools/install_torch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform != "linux", reason="every build for macOS is a CPU build")
@pytest.mark.parametrize(
    ("wheel", "cpu"),
    [
        (f"https://mirror.invalid/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_{MACHINE}.whl", True),
        (f"/wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_{MACHINE}.whl", True),
        (f"https://mirror.invalid/torch-2.13.0-cp311-cp311-manylinux_2_28_{MACHINE}.whl", False),
        (f"https://mirror.invalid/torch-2.13.0%2Bcu130-cp311-cp311-manylinux_2_28_{MACHINE}.whl", False),
        (f"https://mirror.invalid/+cpu/torch-2.13.0-cp311-cp311-manylinux_2_28_{MACHINE}.whl", False),
        ("", False),
    ],
)
def test_only_a_build_named_cpu_counts_as_one(wheel: str, cpu: bool, install_torch: ModuleType) -> None:
    """The plain name on Linux is a CUDA build; only `+cpu` in the file's own name is not."""
    assert install_torch.is_cpu_build(wheel) is cpu


def test_what_the_installed_torch_imports_is_locked() -> None:
    """Torch comes without its dependencies, so all that it asks for (but CUDA) must be in the lock."""
    asked = [item for item in importlib.metadata.requires("torch") or [] if "extra ==" not in item]
    names = {re.split(r"[<>=!;\[ ]", item)[0].lower() for item in asked}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    missing = sorted(
        name
        for name in names
        if not name.startswith(("nvidia", "triton", "cuda"))
        and not re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE)
    )
    assert missing == []


def test_the_installed_torch_is_read_without_importing_it(install_torch: ModuleType) -> None:
    """Version and CUDA version come from torch's own file."""
    found = install_torch.installed_build()
    assert found is not None
    assert found[0] == "2.13.0"
