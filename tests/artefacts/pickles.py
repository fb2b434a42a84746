"""Crafted pickles, assembled opcode by opcode and never loaded, and archives around them."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

RISKY = (
    *("os system", "posix system", "nt system", "os popen", "os execve", "subprocess Popen", "subprocess run"),
    *("subprocess check_output", "builtins eval", "builtins exec", "builtins compile", "builtins open"),
    *("builtins getattr", "builtins __import__", "__builtin__ eval", "importlib import_module", "runpy run_path"),
    *("runpy _run_code", "pty spawn", "socket create_connection", "shutil rmtree", "webbrowser open", "ctypes CDLL"),
    *("pickle loads", "_pickle loads", "pickle load", "marshal loads", "dill loads", "cloudpickle loads"),
    *("joblib load", "torch load", "torch.storage _load_from_bytes", "torch.jit load", "torch.hub load"),
    *("torch.utils.cpp_extension load_inline", "torch._dynamo.guards GuardBuilder.get", "numpy load"),
    *("numpy.f2py.crackfortran myeval", "numpy.testing._private.utils runstring", "operator attrgetter"),
    *(
        "operator methodcaller",
        "functools partial",
        "types FunctionType",
        "types CodeType",
        "code InteractiveInterpreter",
    ),
    *(
        "timeit timeit",
        "cProfile run",
        "pdb run",
        "doctest debug_script",
        "asyncio.unix_events _UnixSubprocessTransport",
    ),
    *("logging.config _resolve", "idlelib.pyshell ModifiedInterpreter", "ensurepip _run_pip", "pip main"),
    *("multiprocessing.util spawnv_passfds", "uuid _get_command_stdout", "smtplib SMTP", "tempfile NamedTemporaryFile"),
    *("collections OrderedDict.__init__.__globals__", "collections namedtuple", "copyreg _reconstructor"),
)


def called_text(name: str) -> bytes:
    """Protocol 0: GLOBAL and REDUCE."""
    module, _, attribute = name.partition(" ")
    return f"c{module}\n{attribute}\n(S'x'\ntR.".encode()


def called_stacked(name: str) -> bytes:
    """Protocol 4: STACK_GLOBAL."""
    module, _, attribute = name.partition(" ")
    return b"\x80\x04" + short(module) + short(attribute) + b"\x93(\x8c\x01xtR."


def short(text: str) -> bytes:
    """SHORT_BINUNICODE."""
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def tricks() -> Iterator[tuple[str, bytes]]:
    """Pickles whose danger is hidden from a reader that looks for names only."""
    proto, system = b"\x80\x04", short("os") + short("system") + b"\x93"
    yield "global by memo", proto + short("system") + b"\x94" + short("os") + b"\x94" + b"h\x01h\x00\x93)R."
    yield "global by long memo", proto + short("os") + b"r\0\0\1\0" + short("system") + b"q\7" + b"j\0\0\1\0h\7\x93)R."
    yield "global by dup and pop", proto + short("os") + short("nothing") + b"0" + short("system") + b"\x93)R."
    yield "global named by bytes of an old text", b"U\2osU\6system\x93)R."
    yield "global made at run time", proto + b"cos\nsystem\n0" + short("os") + b"]\x93."
    yield "name from a called thing", proto + b"cbuiltins\nstr\n)R" + short("system") + b"\x93)R."
    yield "inst", b"(S'x'\nios\nsystem\n."
    yield "obj", b"(cos\nsystem\nS'x'\no."
    yield "newobj", b"\x80\x02csubprocess\nPopen\n)\x81."
    yield "newobj_ex", b"\x80\x04csubprocess\nPopen\n)}\x92."
    yield "build with a setstate", b"\x80\x02ccollections\nOrderedDict\n}b."
    yield "build into a function", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__code__Nsb."
    yield "extension registry", b"\x80\x02\x82\x01)R."
    yield "extension registry of two bytes", b"\x80\x02\x83\x01\x01)R."
    yield "extension registry of four bytes", b"\x80\x02\x84\x01\x01\0\0)R."
    yield "persistent id", b"Pos.system\n."
    yield "binary persistent id", b"\x80\x02X\4\0\0\0evilQ."
    yield "call of a list", b"\x80\x02])R."
    yield "call of what a call made", b"\x80\x02ccollections\nOrderedDict\n)R)R."
    yield "codec that is no codec", b"\x80\x02c_codecs\nencode\nX\1\0\0\0xX\6\0\0\0os_sys\x86R."
    yield "codec from a call", b"\x80\x02c_codecs\nencode\nX\1\0\0\0xccollections\nOrderedDict\n)R\x86R."
    yield "second pickle behind the first", b"\x80\x04N." + proto + system + b"(\x8c\x01xtR."
    yield "third pickle behind two", b"N.N." + called_text("os system")
    yield "bytes behind the end", b"\x80\x04]." + b"\0" * 64
    yield "nested pickle as bytes", proto + b"cpickle\nloads\nC\x05N....\x85R."
    yield "protocol lie low", b"\x80\x00" + system + b")R."
    yield "protocol lie high", b"\x80\x09N."
    yield "protocol twice", b"\x80\x02\x80\x04N."
    yield "protocol in the middle", b"N\x80\x04\x94."
    yield "no stop", proto + system
    yield "broken after the call", proto + system + b"(\x8c\x01xtR" + b"\xff\xfe\xfd"
    yield from broken_ones()


def broken_ones() -> Iterator[tuple[str, bytes]]:
    """Pickles that no pickler writes and that readers may take for different things."""
    yield "stop with an empty stack", b"\x80\x02."
    yield "stop with two objects", b"\x80\x02NN."
    yield "mark at the end", b"\x80\x02(."
    yield "frame beyond the file", b"\x80\x04\x95\xff\xff\0\0\0\0\0\0N."
    yield "huge text", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fN."
    yield "negative long", b"\x80\x02\x8b\xff\xff\xff\xff."
    yield "memo of nothing", b"\x80\x02h\x07."
    yield "buffer from outside", b"\x80\x05\x97."
    yield "readonly buffer", b"\x80\x05N\x98."
    yield "name with a line feed in unicode", b"\x80\x02cos\nsystem\n0ccollections\nOrderedDict\n)R."
    yield "import without a call", b"\x80\x02cantigravity\nx\n."
    yield "unknown opcode", b"\x80\x02\xf3."


def stored(members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return target.getvalue()


TENSOR = (  # what torch writes for {"a": a tensor of three floats}
    b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
    b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x03tq\x07QK\x00K\x03\x85q\x08K\x01"
    b"\x85q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
)


def torch_zip(pickle: bytes = TENSOR, **more: bytes) -> bytes:
    """Return an archive as torch.save writes it."""
    return stored({"archive/data.pkl": pickle, "archive/version": b"3\n", "archive/data/0": bytes(12), **more})


def torch_old(obj: bytes = TENSOR) -> bytes:
    """Return a file as torch.save wrote it before 1.6: five pickles and raw storages."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88u."
    return magic + b"\x80\x02M\xe9\x03." + system + obj + b"\x80\x02]q\x00X\x01\x00\x00\x000q\x01a." + bytes(8 + 12)


def containers() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Files and folders around a pickle that calls os.system."""
    evil = called_stacked("os system")
    yield "torch archive", {"model.pt": torch_zip(evil)}
    yield "torch archive of plain tensors, not waived", {"model.pt": torch_zip()}
    yield "torch archive with bytes behind its pickle", {"model.pt": torch_zip(TENSOR + evil)}
    yield "torch archive with a second pickle", {"model.pt": torch_zip(**{"archive/extra.pkl": evil})}
    yield "torch archive with a zip inside", {"model.pt": torch_zip(**{"archive/more.zip": stored({"x": evil})})}
    yield "torch archive with another root", {"model.pt": torch_zip(**{"other/data.pkl": evil})}
    yield "torch archive, packed", {"model.pt": stored({"a/data.pkl": evil}, method=zipfile.ZIP_DEFLATED)}
    yield (
        "torchscript",
        {"m.pt": torch_zip(**{"archive/code/__torch__.py": b"def f(): ...", "archive/constants.pkl": b"N."})},
    )
    yield "old torch file", {"model.pth": torch_old(evil)}
    yield "old torch file of plain tensors, not waived", {"model.pth": torch_old()}
    yield (
        "oldest torch file",
        {"model.pth": tar({"sys_info": b"N.", "pickle": evil, "tensors": b"N.", "storages": b"N."})},
    )
    yield "pickle named safetensors", {"model.safetensors": evil}
    yield "pickle named json", {"config.json": called_text("os system")}
    yield "pickle named txt", {"vocab.txt": called_text("posix system")}
    yield "pickle named py", {"app.py": called_text("os system")}
    yield "pickle without a suffix", {"weights": evil}
    yield "zip in a zip", {"model.bin": stored({"inner.zip": stored({"data.pkl": evil})})}
    yield "plain zip with a pickle", {"model.zip": stored({"weights.pkl": evil})}
    yield "gzip", {"model.pkl.gz": gzip.compress(evil)}
    yield "zlib, as joblib writes", {"model.joblib": zlib.compress(evil)}
    yield "bz2", {"model.bz2": bz2.compress(evil)}
    yield "xz", {"model.xz": lzma.compress(evil)}
    yield (
        "joblib with an array inside",
        {"m.joblib": b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b" + bytes(32) + b"."},
    )
    yield "tar", {"weights.tar": tar({"weights.pkl": evil})}
    yield "object array", {"a.npy": npy("|O", (1,), evil)}
    yield "object array in a structure", {"a.npy": npy([("a", "<f4"), ("b", "|O")], (1,), evil)}
    yield "object array in an archive", {"a.npz": stored({"a.npy": npy("|O", (1,), evil)})}
    yield (
        "object array in a packed archive",
        {"a.npz": stored({"a.npy": npy("|O", (1,), evil)}, method=zipfile.ZIP_DEFLATED)},
    )
    yield "pickle at the end of a picture", {"a.png": b"\x89PNG\r\n\x1a\n" + bytes(16) + stored({"data.pkl": evil})}
    yield (
        "keras lambda",
        {"m.keras": stored({"config.json": KERAS_LAMBDA, "metadata.json": b"{}", "model.weights.h5": HDF5})},
    )
    yield "keras with a module of its own", {"m.keras": stored({"config.json": KERAS_MODULE, "metadata.json": b"{}"})}
    yield "keras of plain layers", {"m.keras": stored({"config.json": b"{}", "metadata.json": b"{}"})}
    yield "keras lambda in HDF5", {"m.h5": HDF5 + bytes(64) + KERAS_LAMBDA}
    yield "HDF5 behind a block of its own", {"m.h5": b"user block".ljust(512, b"\0") + HDF5 + bytes(64)}


def tar(members: dict[str, bytes]) -> bytes:
    """Return a tar archive."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def npy(descr: object, shape: tuple[int, ...], data: bytes, *, version: int = 1, extra: str = "") -> bytes:
    """Return a NumPy file with the given header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, {extra}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    width = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(header)) + header + data


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(88)
KERAS_LAMBDA = b'{"config": {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEAAAAA", null, null]}}]}}'
KERAS_MODULE = b'{"module": "evil.layers", "class_name": "Layer", "registered_name": "evil>Layer"}'
