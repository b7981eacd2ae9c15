# Dequantizes exported weights with NumPy as the formats' own libraries do, and saves each as .npy [out, in].
#   python3 read_weights.py JOBS
# JOBS: lines of FILE CONFIG FOLDER. FILE .safetensors: CONFIG is its config.json. FILE .npz: CONFIG is "-", plain codes, scales
# and zero points of channels on axis 1.
# Formulas: compressed-tensors, compressors/; AutoGPTQ, nn_modules/qlinear/qlinear_cuda_old.py; AutoAWQ, utils/packing_utils.py.
import json
import struct
import sys

import numpy as np


def load_safetensors(path):
    try:
        from safetensors import safe_open  # the format's own library, where it is installed
    except ImportError:
        safe_open = None
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        data = f.read()
    header.pop("__metadata__", None)
    if safe_open is not None:
        with safe_open(path, framework="np") as f:
            assert set(f.keys()) == set(header)
    types = {"F32": "<f4", "F16": "<f2", "I8": "<i1", "U8": "<u1", "I32": "<i4", "I64": "<i8", "F8_E4M3": "<u1", "I16": "<i2"}
    return {name: np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], types[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


def e4m3(codes):
    c = np.arange(256)
    e, m = (c >> 3) & 15, c & 7
    v = np.where(e == 0, m * 2.0 ** -9, (8 + m) * 2.0 ** (e - 10.0))
    return (v * np.where(c >= 128, -1, 1)).astype(np.float32)[codes]


def e2m1(codes):
    v = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    return np.concatenate([v, -v])[codes]


def unpack_words(words, n, bits, padded=False):
    """[rows, words] to [rows, n]."""
    if padded:
        each = 32 // bits
        shifts = np.arange(each, dtype=np.uint32) * bits
        return ((words.view(np.uint32)[:, :, None] >> shifts) & ((1 << bits) - 1)).reshape(words.shape[0], -1)[:, :n].astype(np.int64)
    flat = np.unpackbits(np.ascontiguousarray(words).view(np.uint8).reshape(words.shape[0], -1), axis=1, bitorder="little")
    flat = flat[:, :n * bits].reshape(words.shape[0], n, bits).astype(np.int64)
    return (flat << np.arange(bits)).sum(axis=2)


def by_group(values, columns):
    return np.repeat(values, columns // values.shape[1], axis=1)


def compressed(t, m, q):
    group = q["config_groups"]["group_0"]
    for g in q["config_groups"].values():
        if m in g["targets"]:
            group = g
    w, form = group["weights"], group.get("format", q["format"])
    bits, scale = w["num_bits"], t[m + ".weight_scale"]
    if form == "pack-quantized":
        rows, columns = t[m + ".weight_shape"]
        codes = unpack_words(t[m + ".weight_packed"], columns, bits) - (1 << (bits - 1))
        zero = np.zeros((rows, 1), np.int64)
        if not w["symmetric"]:
            zero = unpack_words(np.ascontiguousarray(t[m + ".weight_zero_point"].T), rows, bits).T - (1 << (bits - 1))
        return (codes - by_group(zero, columns)).astype(np.float32) * by_group(scale, columns)
    if form == "int-quantized":
        codes = t[m + ".weight"].astype(np.int64)
        zero = t[m + ".weight_zero_point"].astype(np.int64) if not w["symmetric"] else np.zeros((1, 1), np.int64)
        zero, scale = zero.reshape(zero.shape[0], -1), scale.reshape(scale.shape[0], -1)
        return (codes - by_group(zero, codes.shape[1])).astype(np.float32) * by_group(scale, codes.shape[1])
    if form in ("float-quantized", "mxfp8-quantized"):
        codes = e4m3(t[m + ".weight"])
        scale = scale.reshape(scale.shape[0], -1)
        if form == "mxfp8-quantized":
            scale = (2.0 ** (scale.astype(np.float64) - 127)).astype(np.float32)
        return codes * by_group(scale, codes.shape[1])
    packed = t[m + ".weight_packed"]
    codes = e2m1(np.stack([packed & 15, packed >> 4], axis=2).reshape(packed.shape[0], -1))
    if form == "mxfp4-pack-quantized":
        scale = (2.0 ** (scale.astype(np.float64) - 127)).astype(np.float32)
    else:
        scale = e4m3(scale) / t[m + ".weight_global_scale"][0]
    return codes * by_group(scale, codes.shape[1])


def gptq(t, m, q):
    bits, scales = q["bits"], t[m + ".scales"].astype(np.float32)
    groups, columns = scales.shape
    qweight, qzeros = t[m + ".qweight"], t[m + ".qzeros"]
    rows = len(t[m + ".g_idx"])
    codes = unpack_words(np.ascontiguousarray(qweight.T), rows, bits).T
    zeros = unpack_words(qzeros, columns, bits) + (1 if q["checkpoint_format"] == "gptq" else 0)
    g = t[m + ".g_idx"]
    return (scales[g] * (codes - zeros[g])).astype(np.float32).T


def awq(t, m, q):
    def nibbles(words):
        shifts = np.arange(0, 32, 4, dtype=np.uint32)
        columns = ((words.view(np.uint32)[:, :, None] >> shifts) & 15).reshape(words.shape[0], -1).astype(np.int64)
        order = np.arange(columns.shape[1]).reshape(-1, 8)[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(-1)
        return columns[:, order]
    codes, zeros, scales = nibbles(t[m + ".qweight"]), nibbles(t[m + ".qzeros"]), t[m + ".scales"].astype(np.float32)
    size = codes.shape[0] // scales.shape[0]
    return ((codes - np.repeat(zeros, size, axis=0)) * np.repeat(scales, size, axis=0)).astype(np.float32).T


def main(path, config, folder):
    if path.endswith(".npz"):
        arrays = np.load(path)
        assert json.loads(arrays["quanvas.network"].tobytes())["version"] == 1
        assert json.loads(arrays["quanvas.graph"].tobytes())["nodes"]
        for name in arrays.files:
            if name.endswith(".codes"):
                base = name[:-len(".codes")]
                codes, scale = arrays[name], arrays[base + ".scale"]
                zero = arrays[base + ".zero_point"] if base + ".zero_point" in arrays.files else np.zeros_like(scale)
                assert scale.size == codes.shape[1]
                np.save(folder + "/" + base + ".npy", (codes - zero[None, :]).astype(np.float32) * scale[None, :])
        return
    tensors = load_safetensors(path)
    q = json.load(open(config))["quantization_config"]
    read = {"compressed-tensors": compressed, "gptq": gptq, "awq": awq}[q["quant_method"]]
    modules = {n.rsplit(".", 1)[0] for n in tensors if n.endswith((".weight_scale", ".scales"))}
    for m in modules:
        np.save(folder + "/" + m + ".npy", np.ascontiguousarray(read(tensors, m, q).astype(np.float32)))


for line in open(sys.argv[1]):
    main(*line.split())
