"""The C tables of native/core seen from Python: argument structs and tables are read from the
headers, so that no list is kept twice. Every field is 8 or 16 bytes: a view (pointer, count), an
int64 or a double."""

import ctypes
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "native" / "core"


class View(ctypes.Structure):
    """F32, U8 or I32: a pointer and a number of elements."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_int64)]


class List(ctypes.Structure):
    """Views, or doubles, in host memory."""

    _fields_ = [("items", ctypes.c_void_p), ("size", ctypes.c_int64)]


KINDS = {
    "F32List": List,
    "U8List": List,
    "Numbers": List,
    "F32": View,
    "U8": View,
    "I32": View,
    "int64_t": ctypes.c_int64,
    "double": ctypes.c_double,
}


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def structs():
    """Name of each argument struct -> its ctypes class; `kinds` maps a field to F32, U8, ..."""
    found = {}
    for header in sorted((CORE / "ops").glob("*.hpp")):
        text = without_comments(header.read_text())
        for name, body, order in re.findall(
            r"struct (\w+) \{((?:(?!\bstruct ).)*?)SPR2Q_FIELDS\((.*?)\)", text, re.S
        ):
            fields = []
            for kind, names in re.findall(rf"\b({'|'.join(KINDS)})\s+([^;]+);", body):
                fields += [(field.strip(), kind) for field in names.split(",")]
            if [field for field, _ in fields] != [part.strip() for part in order.split(",")]:
                continue  # the macro that SPR2Q_ELEMENTWISE expands
            found[name] = fields
        for name, names in re.findall(r"^SPR2Q_ELEMENTWISE\((\w+), ([^)]*)\)", text, re.M):
            found[name] = [(field.strip(), "F32") for field in names.split(",")] + [
                ("n", "int64_t")
            ]
    classes = {}
    for name, fields in found.items():
        members = [(field, KINDS[kind]) for field, kind in fields]
        classes[name] = type(
            name, (ctypes.Structure,), {"_fields_": members, "kinds": dict(fields)}
        )
    return classes


STRUCTS = structs()
OPS = re.findall(r"X\((\w+), (\w+)\)", (CORE / "ops.hpp").read_text())


class Backend:
    """An op table: `call("gelu", x=..., y=..., n=...)`; views are (address, count) or None,
    lists are Python lists of views or of numbers."""

    def __init__(self, address):
        self.name = ctypes.cast(address + 8, ctypes.POINTER(ctypes.c_char_p))[0].decode()
        pointers = ctypes.cast(address + 16, ctypes.POINTER(ctypes.c_void_p))
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.ops = {op: (prototype(pointers[i]), STRUCTS[args]) for i, (op, args) in enumerate(OPS)}

    def arguments(self, op, **values):
        _, cls = self.ops[op]
        missing = set(cls.kinds) ^ set(values)
        if missing:
            raise TypeError(f"{op}: fields {sorted(missing)} are missing or unknown")
        given, kept = {}, []
        for field, value in values.items():
            kind = KINDS[cls.kinds[field]]
            if kind is View:
                value = View(*(value or (None, 0)))
            elif kind is List:
                lists = cls.kinds[field] != "Numbers"
                items = [View(*item) for item in value] if lists else value
                kept.append(((View if lists else ctypes.c_double) * len(items))(*items))
                value = List(ctypes.addressof(kept[-1]), len(items))
            given[field] = value
        arguments = cls(**given)
        arguments.lists_in_use = kept  # the lists live as long as the struct
        return arguments

    def call(self, op, **values):
        self.run(op, self.arguments(op, **values))

    def run(self, op, arguments):
        self.ops[op][0](ctypes.addressof(arguments))


def service_types():
    """Services in table order: name -> argument types."""
    text = without_comments((CORE / "cuda_module.hpp").read_text())
    body = re.search(r"struct CudaServices \{(.*?)\n\};", text, re.S).group(1)
    kinds = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64}
    result = {}
    for name, arguments in re.findall(r"\(\*(\w+)\)\(([^)]*)\)", body):
        parts = [part.strip() for part in arguments.split(",") if part.strip()]
        result[name] = [ctypes.c_void_p if "*" in p else kinds[p.split()[0]] for p in parts]
    return result


class CudaDevice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 128),
        ("architecture", ctypes.c_int32),
        ("multiprocessors", ctypes.c_int32),
        ("memory_bytes", ctypes.c_int64),
        ("free_bytes", ctypes.c_int64),
        ("l2_bytes", ctypes.c_int64),
    ]


class RectifierGroup(ctypes.Structure):
    _fields_ = [(name, View) for name in ("weight", "a", "b", "gates", "merged")]
    _fields_ += [(name, ctypes.c_int64) for name in ("experts", "rank", "in", "out")]


class MergePackLayer(ctypes.Structure):
    _fields_ = [("merge", RectifierGroup)]
    _fields_ += [
        (name, View)
        for name in ("weight_lower", "weight_upper", "x_lower", "x_upper", "bias", "packed")
    ]
    _fields_ += [
        (name, ctypes.c_int64)
        for name in ("x_bits", "weight_bits", "x_granularity", "weight_granularity")
    ]


class CudaError(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


def error_name(code):
    text = (CORE / "cuda_module.hpp").read_text()
    constants = dict(re.findall(r"(kCuda\w+) = (\d+)", text))
    names = dict(re.findall(r"case (kCuda\w+): return \"(\w+)\"", text))
    return next(
        (names[k] for k, v in constants.items() if int(v) == code and k in names), str(code)
    )


class Cuda:
    """The module of libspr2q_cuda.so (or of the test shim): services as methods that raise."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        entry = self.library.spr2q_cuda_module
        entry.restype = ctypes.c_void_p
        module = entry()
        versions = ctypes.cast(module, ctypes.POINTER(ctypes.c_uint32))
        expected = int(
            re.search(r"kCudaAbiVersion = (\d+)", (CORE / "cuda_module.hpp").read_text()).group(1)
        )
        words = ctypes.cast(module, ctypes.POINTER(ctypes.c_int64))
        if versions[0] != expected or words[1] != 16 + 8 * len(OPS):
            raise CudaError("ERR_CUDA_BAD_LIBRARY", "another version or op list: build it anew")
        self.backend = Backend(words[3])
        table = words[4]
        self.host_memory = ctypes.cast(table, ctypes.POINTER(ctypes.c_int32))[0] == 1
        pointers = ctypes.cast(table + 8, ctypes.POINTER(ctypes.c_void_p))
        self.services = {}
        for i, (name, types) in enumerate(service_types().items()):
            self.services[name] = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(pointers[i])

    def __getattr__(self, name):
        service = self.services[name]

        def checked(*arguments):
            code = service(*arguments)
            if code != 0:
                self.check()
                raise CudaError(error_name(code), name)

        return checked

    def check(self):
        """Raises the failure that ops or services left behind."""
        text = ctypes.c_char_p()
        code = self.services["last_error"](ctypes.addressof(text))
        if code != 0:
            raise CudaError(error_name(code), (text.value or b"").decode())

    def devices(self):
        count = ctypes.c_int32()
        self.device_count(ctypes.addressof(count))
        result = []
        for i in range(count.value):
            device = CudaDevice()
            self.describe_device(i, ctypes.addressof(device))
            result.append(device)
        return result

    def new(self, bytes_):
        address = ctypes.c_void_p()
        self.allocate(ctypes.addressof(address), max(int(bytes_), 1))
        return address.value

    def handle(self, service):
        made = ctypes.c_void_p()
        getattr(self, service)(ctypes.addressof(made))
        return made.value
