# An independent reader of exported Llama language models: tokenizes the text, reads the weights as each format's public
# definition says, runs the network in NumPy (ONNX files: onnxruntime; TorchScript: PyTorch), and prints a row of a table in
# Markdown for each file: bytes, perplexity, and how many predictions are those of a dump of the screen's network.
#   python3 llama_readers.py --text FILE --tokenizer tokenizer.bin [--separator S] [--begin N] [--screen DUMP] FILE...
# FILE: .safetensors with config.json beside it (GPTQ, AWQ, compressed-tensors), .safetensors and .npz of plain codes, .h (is
# compiled), .gguf, .onnx (QDQ, operators on codes, QONNX), .pt. DUMP: what `quanvas-cli dump` wrote of the same windows.
# Formulas: qonnx, custom_op/general/quant.py; llama2.c, run.c.
# Exit codes: 0 all files were read, 1 one was not, 77 NumPy is not installed.
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    sys.exit(77)

from llama_weights import (NotInstalled, described, gguf, groups_of, header, load_safetensors, packed, plain, read_model,
                           spelt_in_c)


# --- text ---

def read_tokenizer(path):
    data = open(path, "rb").read()
    at, pieces = 4, []
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        pieces.append((data[at + 8:at + 8 + size], score))
        at += 8 + size
    return pieces


def encode(text, pieces):
    """llama2.c: a space before the text, then the pair with the best score is joined until there is none."""
    ids = {}
    for i, (piece, _) in enumerate(pieces):
        ids.setdefault(piece, i)
    tokens = []
    for c in " " + text:
        c = c.encode()
        tokens += [ids[c]] if c in ids else [b + 3 for b in c]
    while True:
        best = None
        for i in range(len(tokens) - 1):
            joined = ids.get(pieces[tokens[i]][0] + pieces[tokens[i + 1]][0])
            if joined is not None and (best is None or pieces[joined][1] > best[0]):
                best = (pieces[joined][1], i, joined)
        if best is None:
            return tokens
        tokens[best[1]:best[1] + 2] = [best[2]]


def windows_of(args):
    """[windows, 512] ids that begin with BOS and are filled up with their last, and how many of each are real."""
    if args.ids:
        ids = np.fromfile(args.ids, "<i8").reshape(-1, args.window)
        return ids, [args.window] * len(ids)
    text = open(args.text, encoding="utf-8").read()
    pieces = read_tokenizer(args.tokenizer)
    rows, sizes = [], []
    for document in text.split(args.separator) if args.separator else [text]:
        if args.separator:
            document = document.strip()
        tokens = encode(document, pieces) if document else []
        for begin in range(0, len(tokens), args.window - 1):
            part = [1] + tokens[begin:begin + args.window - 1]
            sizes.append(len(part))
            rows.append(part + [part[-1]] * (args.window - len(part)))
    return np.array(rows[args.begin:], np.int64), sizes[args.begin:]


def perplexity(logits, ids, sizes):
    loss, count = 0.0, 0
    for row, tokens, n in zip(logits.astype(np.float64), ids, sizes):
        scores, wanted = row[:n - 1], tokens[1:n]
        most = scores.max(axis=1)
        total = np.log(np.exp(scores - most[:, None]).sum(axis=1)) + most
        loss += (total - scores[np.arange(n - 1), wanted]).sum()
        count += n - 1
    return float(np.exp(loss / count)), count


# --- the network ---

def llama(weights, ids, heads, kv_heads):
    """weights: {'emb', 'norm', 'head', (layer, 'wq'): [out, in]}; rotary embedding of neighbours, base 10000."""
    x = weights["emb"][ids]
    n, tokens, features = x.shape
    size = features // heads
    angle = np.arange(tokens)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)[None, :]
    cos, sin = np.cos(angle).astype(np.float32)[:, None, :], np.sin(angle).astype(np.float32)[:, None, :]

    def norm(v, w):
        return v / np.sqrt((v * v).mean(axis=-1, keepdims=True, dtype=np.float32) + np.float32(1e-5)) * w

    def rotate(v):
        a, b = v[..., 0::2], v[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(v.shape)

    hidden = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    for i in range(sum(1 for k in weights if isinstance(k, tuple) and k[1] == "wq")):
        w = {name: weights[(i, name)] for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "an", "fn")}
        h = norm(x, w["an"])
        q = rotate((h @ w["wq"].T).reshape(n, tokens, heads, size)).transpose(0, 2, 1, 3)
        k = rotate((h @ w["wk"].T).reshape(n, tokens, kv_heads, size)).repeat(heads // kv_heads, axis=2).transpose(0, 2, 3, 1)
        v = (h @ w["wv"].T).reshape(n, tokens, kv_heads, size).repeat(heads // kv_heads, axis=2).transpose(0, 2, 1, 3)
        s = q @ k / np.float32(np.sqrt(size)) + hidden
        s = np.exp(s - s.max(axis=-1, keepdims=True))
        s /= s.sum(axis=-1, keepdims=True)
        x = x + (s @ v).transpose(0, 2, 1, 3).reshape(n, tokens, features) @ w["wo"].T
        h = norm(x, w["fn"])
        gate = h @ w["w1"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["w3"].T)) @ w["w2"].T
    return norm(x, weights["norm"]) @ weights["head"].T


# --- whole networks ---

def expand_quant(model):
    """QONNX's Quant as operators that onnxruntime has; its weights are constants."""
    import onnx
    from onnx import helper, numpy_helper
    graph, nodes = model.graph, []
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}

    def constant(name, value):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    for node in graph.node:
        if node.op_type != "Quant":
            if node.domain not in ("", "ai.onnx"):
                raise ValueError("operator %s" % node.op_type)
            nodes.append(node)
            continue
        a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        x, scale, zero, width = node.input
        if a["rounding_mode"].upper() not in (b"ROUND", b"HALF_EVEN"):
            raise ValueError("rounding %s" % a["rounding_mode"])
        bits, narrow, o = float(values[width]), a["narrow"], node.output[0]
        low, high = (-2 ** (bits - 1) + narrow, 2 ** (bits - 1) - 1) if a["signed"] else (0, 2 ** bits - 1 - narrow)
        step = [("Div", [x, scale]), ("Add", [o + ".1", zero]), ("Max", [o + ".2", constant(o + ".low", low)]),
                ("Min", [o + ".3", constant(o + ".high", high)]), ("Round", [o + ".4"]), ("Sub", [o + ".5", zero]),
                ("Mul", [o + ".6", scale])]
        for i, (op, inputs) in enumerate(step):
            nodes.append(helper.make_node(op, inputs, [o + ".%d" % (i + 1) if i < 6 else o]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def onnxruntime(path, ids):
    with tempfile.TemporaryDirectory() as folder:
        model = path
        data = open(path, "rb").read()
        if b"qonnx.custom_op.general" in data:
            try:
                import onnx
            except ImportError:
                raise NotInstalled("python3-onnx") from None
            model = folder + "/plain.onnx"
            onnx.save(expand_quant(onnx.load_from_string(data)), model)
        out = []
        # A dynamic quantizer's file is for one window: each by itself.
        jobs = [{"model": model, "out": folder + "/out%d" % i,
                 "inputs": {"ids": {"type": "int64", "dims": [1, ids.shape[1]], "file": folder + "/ids%d" % i}}}
                for i in range(len(ids))]
        for i, row in enumerate(ids):
            row.astype("<i8").tofile(folder + "/ids%d" % i)
        with open(folder + "/jobs.json", "w") as f:
            json.dump(jobs, f)
        try:
            script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_many.js")
            done = subprocess.run(["node", script, folder + "/jobs.json"],
                                  capture_output=True, text=True)
        except FileNotFoundError:
            raise NotInstalled("node") from None
        if done.returncode == 77:
            raise NotInstalled("onnxruntime-node")
        for result in json.loads(done.stdout[done.stdout.index('{"results"'):])["results"]:
            if "error" in result:
                raise ValueError("onnxruntime: " + result["error"])
            o = result["outputs"][0]
            out.append(np.fromfile(o["file"], "<f4").reshape(o["dims"])[0])
        return np.stack(out)


def pytorch(path, ids):
    try:
        import torch
    except ImportError:
        raise NotInstalled("python3-torch") from None
    torch.set_num_threads(1)
    with torch.no_grad():
        result = torch.jit.load(path)(torch.from_numpy(ids))
    return (result[0] if isinstance(result, (tuple, list)) else result).float().numpy()


def run(path, ids, args, model):
    """The scores and the reader's name."""
    heads, kv_heads = args.heads, args.kv_heads
    if path.endswith(".onnx"):
        return onnxruntime(path, ids), "onnxruntime"
    if path.endswith((".pt", ".ts")):
        return pytorch(path, ids), "PyTorch"
    if path.endswith(".gguf"):
        weights, heads, kv_heads = gguf(path)
    elif path.endswith(".npz"):
        arrays = np.load(path)
        weights = plain({n: arrays[n] for n in arrays.files}, model, groups_of(arrays["quanvas.network"].tobytes()))
    elif path.endswith(".h"):
        arrays, sizes = header(path)
        weights = plain(arrays, model, sizes, spelt_in_c)
    else:
        tensors = load_safetensors(path)
        is_plain = any(n.endswith(".codes") for n in tensors)
        weights = plain(tensors, model, groups_of(described(path))) if is_plain else packed(path, tensors)
    return llama(weights, ids, heads, kv_heads), "NumPy"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--text")
    parser.add_argument("--tokenizer")
    parser.add_argument("--ids", help="raw int64, windows of --window tokens, instead of a text")
    parser.add_argument("--separator", default="")
    parser.add_argument("--begin", type=int, default=0, help="the first window that counts")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--model", help="the network's own ONNX file, for files of plain numbers under its tensors' names")
    parser.add_argument("--screen", help="folder of a dump")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    ids, sizes = windows_of(args)
    model = read_model(args.model) if args.model else None
    screen = None
    if args.screen:
        screen = np.fromfile(os.path.join(args.screen, "logits.f32"), "<f4").reshape(len(ids), args.window, -1)
    failed = False
    for path in args.files:
        row = {"file": os.path.basename(path)}
        try:
            row["bytes"] = os.path.getsize(path)
            logits, row["reader"] = run(path, ids, args, model)
            row["perplexity"], row["tokens"] = perplexity(logits, ids, sizes)
            if screen is not None:
                row["screen"], _ = perplexity(screen, ids, sizes)
                row["equal"], row["of"] = int((logits.argmax(-1) == screen.argmax(-1)).sum()), int(ids.size)
                row["largest"] = float(np.abs(logits - screen).max() / np.abs(screen).max())
        except NotInstalled as missing:
            row["skipped"] = str(missing)
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error,
                subprocess.CalledProcessError) as error:
            row["error"] = "%s: %s" % (type(error).__name__, error)
            failed = True
        if args.json:
            print(json.dumps(row))
        elif "perplexity" in row and screen is not None:
            print("| %s | %s | %.4f | %.4f | %d of %d | %.1e | %s |" % (
                row["file"], row["reader"], row["screen"], row["perplexity"], row["equal"], row["of"], row["largest"],
                format(row["bytes"], ",")))
        elif "perplexity" in row:
            print("| %s | %s | %.4f | %s |" % (row["file"], row["reader"], row["perplexity"], format(row["bytes"], ",")))
        else:
            print("| %s | %s |" % (row["file"], row.get("error") or "not installed: " + row["skipped"]))
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
