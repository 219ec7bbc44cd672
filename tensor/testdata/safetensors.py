"""An independent reader and writer of safetensors files, by hand; arrays go through numpy where it is installed.

    safetensors.py read FILE     prints one JSON line per tensor: name, dtype, shape, sha256 of its bytes
    safetensors.py write FILE    writes a small file with every kind of entry, and prints the same lines
"""
import hashlib, json, struct, sys
try:
    import numpy as np
except ImportError:
    np = None

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
         "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8"}

def read(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        assert n % 8 == 0 and n <= 100_000_000, n
        header, data = json.loads(f.read(n)), f.read()
    header.pop("__metadata__", None)
    end = 0
    for name, t in sorted(header.items(), key=lambda kv: kv[1]["data_offsets"]):
        begin, stop = t["data_offsets"]
        assert begin == end and stop >= begin, name
        end, raw = stop, data[begin:stop]
        if np is not None and t["dtype"] in NUMPY:
            raw = np.frombuffer(raw, NUMPY[t["dtype"]]).reshape(t["shape"]).copy(order="C").tobytes()
        print(json.dumps({"name": name, "dtype": t["dtype"], "shape": t["shape"], "sha256": hashlib.sha256(raw).hexdigest()}))
    assert end == len(data), (end, len(data))

def write(path):
    header, data = {"__metadata__": {"format": "np", "é": "\n"}}, b""
    for name, dtype, shape, size in [("b.1", "F32", [3, 5], 60), ("a\"é", "BF16", [7], 14), ("none", "I64", [0, 4], 0), ("s", "U8", [], 1)]:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes((len(data) * 7 + i * 13) % 251 for i in range(size))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    read(path)

{"read": read, "write": write}[sys.argv[1]](sys.argv[2])
