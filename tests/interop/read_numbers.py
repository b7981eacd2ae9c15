# Reads the weights of an exported file without Quanvas and compares them with those of a dump, bit for bit.
#   python3 read_numbers.py FILE DUMP
# FILE: .npz (numpy.load), .safetensors of the target safetensors, the same with a config.json of the target compressed-tensors
# beside it (read_weights.py), .h (compiled with cc). value = (code - zero point) * scale in float32. Prints
# {"tensors", "values", "differing", "missing": names in the dump that the file does not have}.
# Exit codes: 0 compared, 1 failed, 77 NumPy or the C compiler is missing.
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    sys.exit(77)


def dequantized(codes, scale, zero, axis):
    shape = [1] * codes.ndim
    if scale.size > 1:
        if codes.shape[axis] != scale.size:
            raise ValueError("scales of groups are not read here")
        shape[axis] = -1
    zero = np.zeros(1, np.int64) if zero is None else zero
    return (codes.astype(np.int64) - zero.reshape(shape if zero.size > 1 else [1] * codes.ndim)).astype(np.float32) * scale.reshape(shape)


def plain(arrays, network):
    axes = {q["tensor"]: q.get("spec", {}).get("axis", 0) for q in network["quantizers"] if "tensor" in q}
    out = {}
    for name in arrays:
        if name.endswith(".codes"):
            base = name[:-len(".codes")]
            out[base] = dequantized(arrays[name], arrays[base + ".scale"], arrays.get(base + ".zero_point"), axes.get(base, 0))
    return out


# The arrays of a header as a C program sees them, by their names in C.
def compiled(path, shapes):
    text = open(path).read()
    found = re.findall(r"^static const (\w+) (\w+)\[(\d+)\] =", text, re.M)
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        source, program = folder + "/main.c", folder + "/main"
        with open(source, "w") as f:
            f.write('#include <stdio.h>\n#include "%s"\nint main(void) {\n' % os.path.abspath(path))
            for _, name, _ in found:
                f.write("  fwrite(%s, 1, sizeof %s, stdout);\n" % (name, name))
            f.write("  return 0;\n}\n")
        subprocess.run(["cc", "-std=c99", "-w", source, "-o", program, "-lm"], check=True)
        data = subprocess.run([program], check=True, capture_output=True).stdout
    at = 0
    types = {"float": "<f4", "int8_t": "<i1", "uint8_t": "<u1", "int16_t": "<i2", "uint16_t": "<u2", "int32_t": "<i4"}
    for kind, name, count in found:
        kind = np.dtype(types[kind])
        arrays[name] = np.frombuffer(data, kind, int(count), at)
        at += int(count) * kind.itemsize
    out = {}
    for tensor, shape in shapes.items():
        name = re.sub(r"\W", "_", tensor)
        name = name if name + "_codes" in arrays else "_" + name
        if name + "_codes" not in arrays:
            continue
        axis = re.search(r"'" + re.escape(tensor) + r"'[^;]*;\s*\*?\s*scale\[i\], i the index on\s+\*?\s*axis (\d+)", text)
        out[tensor] = dequantized(arrays[name + "_codes"].reshape(shape), arrays[name + "_scale"], arrays.get(name + "_zero_point"),
                                  int(axis.group(1)) if axis else 0)
    return out


def modules(path, config):
    sys.argv = ["read_weights.py", os.devnull]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    with contextlib.redirect_stdout(io.StringIO()):
        import read_weights
    tensors, q = read_weights.load_safetensors(path), json.load(open(config))["quantization_config"]
    return {n.rsplit(".", 1)[0] + ".weight": read_weights.compressed(tensors, n.rsplit(".", 1)[0], q)
            for n in tensors if n.endswith(".weight_scale")}


def main(path, dump):
    rows = json.load(open(dump + "/weights.json"))
    shapes = {r["tensor"]: r["shape"] for r in rows}
    config = os.path.join(os.path.dirname(path), "config.json")
    if path.endswith(".npz"):
        z = np.load(path)
        values = plain({n: z[n] for n in z.files}, json.loads(z["quanvas.network"].tobytes()))
    elif path.endswith(".h"):
        if not shutil.which("cc"):
            sys.exit(77)
        values = compiled(path, shapes)
    elif os.path.exists(config):
        values = modules(path, config)
    else:
        import struct
        with open(path, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
            data = f.read()
        types = {"F32": "<f4", "I8": "<i1", "U8": "<u1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
        network = json.loads(header.pop("__metadata__")["quanvas.network"])
        values = plain({n: np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], types[t["dtype"]]).reshape(t["shape"])
                        for n, t in header.items() if t["dtype"] in types}, network)
    result = {"tensors": 0, "values": 0, "differing": 0, "missing": []}
    for r in rows:
        wanted = np.fromfile(os.path.join(dump, r["file"]), "<f4").reshape(r["shape"])
        got = values.get(r["tensor"])
        if got is None:
            result["missing"].append(r["tensor"])
            continue
        if got.shape != wanted.shape:
            got = got.T
        result["tensors"] += 1
        result["values"] += wanted.size
        result["differing"] += int((got != wanted).sum()) if got.shape == wanted.shape else wanted.size
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:3])
