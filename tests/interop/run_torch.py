# Runs TorchScript files in PyTorch: run_torch.py MODEL INPUT SHAPE OUT [ENGINE] [--batch N] [--type float32|int64|...]
# Writes every result as raw float32 to OUT0, OUT1 ... and prints their shapes as JSON; with --batch that many samples (of the
# first dimension) at a time, with the engine's own choice where ENGINE is "-". Ends with 77 when PyTorch is not installed,
# with 78 when it has no such engine.
import argparse
import json
import math
import os
import sys

# PyTorch 1.13 takes a convolution of oneDNN again for another of the same shape and output scale, whatever its zero point: with
# room for one in that cache each gets its own.
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")

try:
    import torch
except ImportError:
    sys.exit(77)

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("source")
parser.add_argument("shape")
parser.add_argument("out")
parser.add_argument("engine", nargs="?", default="-")
parser.add_argument("--batch", type=int, default=0)
parser.add_argument("--type", default="float32")
args = parser.parse_args()
if args.engine != "-":
    if args.engine not in torch.backends.quantized.supported_engines:
        sys.exit(78)
    torch.backends.quantized.engine = args.engine
shape = [int(d) for d in args.shape.split(",")]
type_ = getattr(torch, args.type)
step = args.batch or shape[0]
size = math.prod(shape[1:])
width = torch.empty(0, dtype=type_).element_size()
model = torch.jit.load(args.model)
shapes = []
with torch.no_grad(), open(args.source, "rb") as source:
    for begin in range(0, max(shape[0], 1), max(step, 1)):
        n = min(step, shape[0] - begin)
        data = source.read(n * size * width)
        x = (torch.frombuffer(bytearray(data), dtype=type_) if data else torch.empty(0, dtype=type_)).reshape([n] + shape[1:])
        results = model(x)
        results = [results] if isinstance(results, torch.Tensor) else list(results)
        for i, r in enumerate(results):
            r = r.to(torch.float32).contiguous()
            with open(args.out + str(i), "wb" if begin == 0 else "ab") as f:
                f.write(r.numpy().tobytes())
            if begin == 0:
                shapes.append(list(r.shape))
            else:
                shapes[i][0] += r.shape[0]
print(json.dumps({"version": torch.__version__, "shapes": shapes}))
