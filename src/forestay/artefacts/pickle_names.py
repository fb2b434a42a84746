"""The allow-list of names that a pickle of weights may call or refer to; everything else is refused by its name.

The list holds what torch and NumPy write for tensors, arrays and the plain containers around them, and nothing that
reads a second pickle, imports, or takes a function to call. It is compared by exact module and name. Sources: torch's
own list for `weights_only=True` (torch/_weights_only_unpickler.py) and NumPy's `__reduce__` methods.
"""

from collections.abc import Mapping

_STORAGES = (
    *("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
    *("ComplexDouble", "ComplexFloat", "QUInt8", "QInt8", "QInt32", "QUInt4x2", "QUInt2x4"),
)
_DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "complex64", "complex128", "bool", "quint8", "qint8", "qint32"),
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
_CONTAINERS = ("set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bytes", "bytearray", "slice")

ALLOWED: Mapping[str, frozenset[str]] = {
    "collections": frozenset({"OrderedDict"}),
    "builtins": frozenset(_CONTAINERS),
    "__builtin__": frozenset(_CONTAINERS),
    "_codecs": frozenset({"encode"}),  # how protocol 2 writes bytes; its arguments are checked
    "torch": frozenset({*(f"{name}Storage" for name in _STORAGES), *_DTYPES, "Size", "Tensor", "device"}),
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),  # not _load_from_bytes: that is a second pickle
    "torch.nn.parameter": frozenset({"Parameter"}),
    "torch._utils": frozenset(
        {
            *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"),
            *("_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor"),
            *("_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor"),
        }
    ),
    "numpy": frozenset({"ndarray", "dtype"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy.core.numeric": frozenset({"_frombuffer"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
}
PLAIN_CODECS = frozenset({"latin1", "latin-1", "ascii", "utf-8", "utf8"})


def is_allowed(module: str, name: str) -> bool:
    """Tell whether a pickle of weights may name this."""
    return name in ALLOWED.get(module, ())
