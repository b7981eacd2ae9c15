# Runs TorchScript files in PyTorch: run_torch.py MODEL INPUT.f32 SHAPE OUT [ENGINE]
# Writes every result as raw float32 to OUT0, OUT1 ... and prints their shapes as JSON. Ends with 77 when PyTorch is not
# installed, with 78 when it has no such engine.
import json
import sys

try:
    import torch
except ImportError:
    sys.exit(77)

model, source, shape, out = sys.argv[1:5]
if len(sys.argv) > 5:
    if sys.argv[5] not in torch.backends.quantized.supported_engines:
        sys.exit(78)
    torch.backends.quantized.engine = sys.argv[5]
x = torch.frombuffer(bytearray(open(source, "rb").read()), dtype=torch.float32).reshape([int(d) for d in shape.split(",")])
with torch.no_grad():
    results = torch.jit.load(model)(x)
results = [results] if isinstance(results, torch.Tensor) else list(results)
for i, r in enumerate(results):
    r = r.to(torch.float32).contiguous()
    with open(out + str(i), "wb") as f:
        f.write(r.numpy().tobytes())
print(json.dumps({"version": torch.__version__, "shapes": [list(r.shape) for r in results]}))
