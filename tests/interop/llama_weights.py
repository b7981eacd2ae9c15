# The weights of exported Llama language models, unpacked with NumPy as each format's public definition says; part of
# llama_readers.py. Formulas: AutoGPTQ, nn_modules/qlinear; GPTQModel, quantization/config.py (dynamic); AutoAWQ,
# utils/packing_utils.py; compressed-tensors, compressors/; ggml, ggml-quants.c. Every
# reader gives {'emb', 'norm', 'head', (layer, 'wq'): [out, in], ...}.
import json
import os
import re
import struct
import subprocess
import tempfile

import numpy as np


class NotInstalled(Exception):
    pass


LINEAR = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")


def named(tensor, layers=64):
    """tensor(name, linear) gives the array of that name ([out, in] of a linear layer) or None."""
    w = {"emb": tensor("emb", False), "norm": tensor("norm.w", False), "head": tensor("head", True)}
    for i in range(layers):
        if tensor("l.%d.wq" % i, True) is None:
            break
        for name in LINEAR:
            w[(i, name)] = tensor("l.%d.%s" % (i, name), True)
        w[(i, "an")], w[(i, "fn")] = tensor("l.%d.an.w" % i, False), tensor("l.%d.fn.w" % i, False)
    missing = [k for k, v in w.items() if v is None]
    if missing:
        raise ValueError("no tensors for %s" % missing)
    return w


# --- safetensors ---

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1",
         "F8_E4M3": "<u1", "BOOL": "<u1"}


def load_safetensors(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length:]
    return {name: np.frombuffer(body[t["data_offsets"][0]:t["data_offsets"][1]], TYPES[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


def described(path):
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(length))["__metadata__"]["quanvas.network"]


def bit_stream(words, count, bits):
    """[rows, words] of int32, the lowest bits first and without gaps, to [rows, count]."""
    raw = np.unpackbits(np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1), axis=1, bitorder="little")
    return (raw[:, :count * bits].reshape(len(words), count, bits).astype(np.int64) << np.arange(bits)).sum(axis=2)


def read_gptq(t, module, config):
    if module + ".qweight" not in t:
        return t.get(module + ".weight")
    bits = config["bits"]
    for pattern, changes in config.get("dynamic", {}).items():
        if pattern.startswith("-:"):
            if re.match(pattern[2:], module):
                raise ValueError("'%s' is packed, and the configuration calls it float" % module)
        elif re.match(pattern[2:] if pattern.startswith("+:") else pattern, module):
            bits = changes.get("bits", bits)
            config = {**config, **changes}
            break
    scales, group = t[module + ".scales"].astype(np.float32), t[module + ".g_idx"]
    size = config["group_size"] if config["group_size"] > 0 else len(group)
    if not config["desc_act"] and not np.array_equal(group, np.arange(len(group)) // size):
        raise ValueError("'%s' has groups that the configuration does not tell" % module)
    codes = bit_stream(t[module + ".qweight"].T, len(group), bits).T
    zeros = bit_stream(t[module + ".qzeros"], scales.shape[1], bits)
    if config["checkpoint_format"] == "gptq":
        zeros = zeros + 1
    if config["sym"] and np.any(zeros != 1 << (bits - 1)):
        raise ValueError("'%s' is no symmetric layer" % module)
    return ((codes - zeros[group]).astype(np.float32) * scales[group]).T


def read_awq(t, module, config):
    if module + ".qweight" not in t:
        return t.get(module + ".weight")
    if any(part in module for part in config["modules_to_not_convert"] or []):
        raise ValueError("'%s' is packed, and the configuration calls it float" % module)

    def columns(words):
        # Nibble i of a word is its column [0, 2, 4, 6, 1, 3, 5, 7][i].
        nibbles = (np.ascontiguousarray(words).view(np.uint32)[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15
        out = np.empty_like(nibbles)
        out[:, :, [0, 2, 4, 6, 1, 3, 5, 7]] = nibbles
        return out.reshape(len(words), -1).astype(np.int64)

    codes, zeros, scales = columns(t[module + ".qweight"]), columns(t[module + ".qzeros"]), t[module + ".scales"]
    size = config["group_size"] if config["group_size"] > 0 else len(codes)
    group = np.arange(len(codes)) // size
    return ((codes - zeros[group]).astype(np.float32) * scales.astype(np.float32)[group]).T


def read_compressed(t, module, config):
    if module in config["ignore"]:
        return t.get(module + ".weight")
    group = next((g for g in config["config_groups"].values() if module in g["targets"]), None) or \
        next((g for g in config["config_groups"].values() if "Linear" in g["targets"]), None)
    if group is None or (module + ".weight_scale" not in t):
        return t.get(module + ".weight")
    w = group["weights"]
    if w.get("actorder"):
        raise ValueError("'%s' has another order of columns" % module)
    bits, scale = w["num_bits"], t[module + ".weight_scale"].astype(np.float32)
    half = 1 << (bits - 1)
    if module + ".weight_packed" in t:
        rows, columns = (int(d) for d in t[module + ".weight_shape"])
        packed = t[module + ".weight_packed"]
        codes = bit_stream(packed, columns, bits) - half
        zeros = None if w["symmetric"] else bit_stream(t[module + ".weight_zero_point"].T, rows, bits).T - half
    else:
        codes = t[module + ".weight"].astype(np.int64)
        zeros = None if w["symmetric"] else t[module + ".weight_zero_point"].astype(np.int64).reshape(-1, 1)
    scale = scale.reshape(scale.shape[0], -1) if scale.size > 1 else scale.reshape(1, 1)
    across = codes.shape[1] // scale.shape[1]
    if w["strategy"] == "group" and across != w["group_size"]:
        raise ValueError("'%s' has groups of %d" % (module, across))
    if zeros is not None:
        codes = codes - np.repeat(zeros, codes.shape[1] // zeros.shape[1], axis=1)
    return codes.astype(np.float32) * np.repeat(scale, across, axis=1)


def packed(path, t):
    config = json.load(open(os.path.join(os.path.dirname(path), "config.json")))["quantization_config"]
    read = {"gptq": read_gptq, "awq": read_awq, "compressed-tensors": read_compressed}[config["quant_method"]]

    def tensor(name, linear):
        if linear:
            return read(t, name, config)
        return t.get(name if name in t else name + ".weight")

    return named(tensor)


# --- plain numbers ---

def matrix(known, shape, linear, group):
    """Codes of a tensor with the graph's shape ([in, out] of x times W), or its values, as [out, in]."""
    if "values" in known:
        value = known["values"].reshape(shape)
        return value.T if linear else value
    codes, scale = known["codes"].astype(np.int64).reshape(shape), known["scale"].astype(np.float32).reshape(-1)
    zero = known.get("zero_point", np.zeros(scale.size)).reshape(-1)
    rows, columns = shape
    at = np.zeros(shape, np.int64)
    if scale.size > 1:  # for each column, or for each column of each group of rows
        if scale.size % columns:
            raise ValueError("%d scales for %d columns" % (scale.size, columns))
        groups = scale.size // columns
        size = rows if groups == 1 else group
        if -(-rows // size) != groups:
            raise ValueError("%d scales for groups of %d" % (scale.size, size))
        at = (np.arange(rows) // size)[:, None] * columns + np.arange(columns)[None, :]
    value = (codes - zero[at]).astype(np.float32) * scale[at]
    return value.T if linear else value


def groups_of(text):
    """Of the description beside the arrays: a group has 32 elements where it does not say so."""
    return {w["tensor"]: w.get("spec", {}).get("group_size", 32) for w in json.loads(text)["weights"]}


def plain(arrays, model, groups, spelt=lambda name: name):
    """arrays: <tensor>.codes, .scale, .zero_point or <tensor>; spelt: how the file spells a tensor's name."""
    if model is None:
        raise NotInstalled("python3-onnx, which names the tensors of --model")
    initializers, of_node = model

    def tensor(name, linear):
        own = of_node.get("/" + name.replace(".", "/").replace("l/", "l.") + "/MatMul") if linear else None
        own = own or next((n for n in (name, name + ".weight") if n in initializers), None)
        if own is None:
            return None
        known = {}
        for part in ("codes", "scale", "zero_point"):
            found = arrays.get(spelt(own + "." + part))
            if found is not None:
                known[part] = found
        if "codes" not in known:
            values = spelt(own) if spelt(own) in arrays else spelt(own + ".values")
            known = {"values": arrays[values]}
        return matrix(known, initializers[own], linear, groups.get(own, 0))

    return named(tensor)


def read_model(path):
    """Shapes of the initializers, and the matrix of each node."""
    try:
        import onnx
    except ImportError:
        return None
    graph = onnx.load(path).graph
    shapes = {i.name: tuple(i.dims) for i in graph.initializer}
    return shapes, {n.name: n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in shapes}


def spelt_in_c(name):
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


def header(path):
    """A program with the header in it writes every array."""
    text = open(path, encoding="utf-8").read()
    kinds = {"float": "<f4", "int8_t": "<i1", "uint8_t": "<u1", "int16_t": "<i2", "int32_t": "<i4", "int64_t": "<i8"}
    arrays = [(k, n) for k, n in re.findall(r"^static const (\w+) (\w+)\[", text, re.M) if k in kinds]
    with tempfile.TemporaryDirectory() as folder:
        source = '#include <stdint.h>\n#include <stdio.h>\n#include "%s"\nint main(void) {\n' % os.path.abspath(path)
        for _, name in arrays:
            source += ' { FILE* f = fopen("%s/%s", "wb"); fwrite(%s, 1, sizeof %s, f); fclose(f); }\n' % (folder, name, name, name)
        with open(folder + "/read.c", "w") as f:
            f.write(source + " return 0;\n}\n")
        try:
            subprocess.run([os.environ.get("CC", "cc"), "-std=c99", "-O0", "-w", folder + "/read.c", "-o", folder + "/read", "-lm"],
                           check=True)
        except FileNotFoundError:
            raise NotInstalled("a C compiler") from None
        subprocess.run([folder + "/read"], check=True)
        values = {name: np.fromfile(folder + "/" + name, kinds[kind]) for kind, name in arrays}
    # The comment before a tensor: '<tensor>' ... scale[(o * 2 + d / 32) * 64 + i].
    sizes = {m[0]: int(m[1]) for c in re.findall(r"/\*.*?\*/", text, re.S)
             for m in re.findall(r"^/\* '([^']+)' .*scale\[\(o \* \d+ \+ d / (\d+)\)", c, re.S)}
    return values, sizes


# --- GGUF ---

def load_gguf(path):
    data = open(path, "rb").read()
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0]

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size:at].decode("utf-8", "replace")

    def value(kind):
        nonlocal at
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = take("I"), take("Q")
            if inner in (8, 9):
                return [value(inner) for _ in range(count)]
            size = struct.calcsize("BbHhIif?  Qqd".replace(" ", "")[inner if inner < 8 else inner - 2])
            at += count * size
            return None
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    if data[:4] != b"GGUF":
        raise ValueError("no GGUF file")
    at = 4
    if take("I") != 3:
        raise ValueError("another version of GGUF")
    tensors, pairs = take("Q"), take("Q")
    meta = {}
    for _ in range(pairs):
        key = text()
        meta[key] = value(take("I"))
    infos = []
    for _ in range(tensors):
        name = text()
        dims = [take("Q") for _ in range(take("I"))]
        infos.append((name, dims[::-1], take("I"), take("Q")))
    align = meta.get("general.alignment", 32)
    base = (at + align - 1) // align * align
    return meta, {name: blocks(data, base + offset, dims, kind) for name, dims, kind, offset in infos}


def blocks(data, offset, shape, kind):
    count = int(np.prod(shape))

    def raw(size, elements):
        return np.frombuffer(data, np.uint8, count // elements * size, offset).reshape(-1, size)

    def half(b):
        return np.ascontiguousarray(b).view("<f2").astype(np.float32)

    def nibbles(b):
        return np.concatenate([b & 15, b >> 4], axis=1).astype(np.int32)

    def fifth(b):
        return (np.ascontiguousarray(b).view("<u4") >> np.arange(32, dtype=np.uint32) & 1).astype(np.int32) << 4

    if kind == 0:
        return np.frombuffer(data, "<f4", count, offset).reshape(shape)
    if kind == 1:
        return np.frombuffer(data, "<f2", count, offset).astype(np.float32).reshape(shape)
    if kind == 30:
        return (np.frombuffer(data, "<u2", count, offset).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind == 2:  # Q4_0
        b = raw(18, 32)
        out = half(b[:, :2]) * (nibbles(b[:, 2:]) - 8)
    elif kind == 3:  # Q4_1
        b = raw(20, 32)
        out = half(b[:, :2]) * nibbles(b[:, 4:]) + half(b[:, 2:4])
    elif kind == 6:  # Q5_0
        b = raw(22, 32)
        out = half(b[:, :2]) * ((nibbles(b[:, 6:]) | fifth(b[:, 2:6])) - 16)
    elif kind == 7:  # Q5_1
        b = raw(24, 32)
        out = half(b[:, :2]) * (nibbles(b[:, 8:]) | fifth(b[:, 4:8])) + half(b[:, 2:4])
    elif kind == 8:  # Q8_0
        b = raw(34, 32)
        out = half(b[:, :2]) * np.ascontiguousarray(b[:, 2:]).view(np.int8)
    else:
        raise ValueError("type %d is not read here" % kind)
    return out.astype(np.float32).reshape(shape)


def gguf(path):
    meta, t = load_gguf(path)
    if meta["general.architecture"] != "llama":
        raise ValueError("a container, no Llama")
    names = {"emb": "token_embd.weight", "norm.w": "output_norm.weight", "head": "output.weight"}
    parts = {"wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output", "w1": "ffn_gate", "w3": "ffn_up",
             "w2": "ffn_down",
             "an.w": "attn_norm", "fn.w": "ffn_norm"}

    def tensor(name, _):
        if name in names:
            return t.get(names[name], t["token_embd.weight"] if name == "head" else None)
        _, i, part = name.split(".", 2)
        return t.get("blk.%s.%s.weight" % (i, parts[part]))

    return named(tensor), meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
