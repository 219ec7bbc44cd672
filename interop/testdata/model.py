"""Makes files of tensors with numpy and by hand, and reads them back, without any of Dray's code.

    model.py write DIR    writes model.safetensors, stored.npz, packed.npz and matrix.npy
    model.py read DIR     reads the last three; model.safetensors has a reader in ../../tensor/testdata

Both print one JSON line for each tensor: file, name, dtype, shape and the SHA-256 of its elements in C order.
"""
import hashlib, json, os, struct, sys
import numpy as np

NAMES = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "<i8": "I64", "|u1": "U8", "|b1": "BOOL"}

def weights():
    r = np.random.default_rng(17)
    m = {"model.embed_tokens.weight": r.standard_normal((2048, 513), np.float32)}
    for i in range(3):
        m[f"model.layers.{i}.attn.weight"] = r.standard_normal((1024, 1024), np.float32)
        m[f"model.layers.{i}.mlp.weight"] = r.standard_normal((700, 1111)).astype(np.float16)
        m[f"model.layers.{i}.norm"] = np.full(77, i, np.float64)
        m[f"model.layers.{i}.mask"] = r.random((33, 5)) < 0.5
    m["steps"] = np.array(12345, np.int64)
    m["nothing"] = np.zeros((0, 4), np.float32)
    m["ü bytes"] = r.integers(0, 256, 3_000_001, np.uint8)
    return m

def line(file, name, a):
    sha = hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()
    return json.dumps({"file": file, "name": name, "dtype": NAMES[a.dtype.str], "shape": list(a.shape), "sha256": sha})

def write(d):
    m = weights()
    header, end = {"__metadata__": {"format": "np"}}, 0
    for name, a in m.items():
        header[name] = {"dtype": NAMES[a.dtype.str], "shape": list(a.shape), "data_offsets": [end, end + a.nbytes]}
        end += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(d, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in m.values():
            f.write(a.tobytes())
    few = {k.replace(".", "_"): v for k, v in m.items() if "layers.1" in k}
    np.savez(os.path.join(d, "stored.npz"), **few)
    np.savez_compressed(os.path.join(d, "packed.npz"), **few)
    np.save(os.path.join(d, "matrix.npy"), np.asfortranarray(m["model.layers.2.attn.weight"]))
    for name, a in m.items():
        print(line("model.safetensors", name, a))
    arrays(d)

def arrays(d):
    for file in ("stored.npz", "packed.npz"):
        with np.load(os.path.join(d, file)) as z:
            for name in z.files:
                print(line(file, name, z[name]))
    print(line("matrix.npy", "", np.load(os.path.join(d, "matrix.npy"))))

{"write": write, "read": arrays}[sys.argv[1]](sys.argv[2])
