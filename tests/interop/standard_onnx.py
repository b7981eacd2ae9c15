# Rewrites the operators of QONNX, FINN and PyXIR into standard ONNX from their public definitions, so that onnxruntime runs
# such files: an independent reader of them.
#   python3 standard_onnx.py IN.onnx OUT.onnx [IN OUT]...
# Definitions: qonnx, custom_op/general (quant.py, bipolar_quant.py, trunc.py, floatquant.py, multithreshold.py), in float32
# and in their order of operations; PyXIR 0.3.5, frontend/onnx: vai_quant_* are pairs [bits, position of the binary point],
# so a number is its integer over 2^position, and what comes in and goes out of a layer is such an integer. How a DPU rounds
# ties is not in the format: half to even, or with the metadata vai_quant_rounding "DPU" as Brevitas' dpu_round does.
# Exit codes: 0 done, 1 an operator or attribute without a definition here, 2 wrong usage, 77 the package onnx is missing.
import sys

try:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper
except ImportError:
    sys.exit(77)

QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "finn")
PYXIR = ("pyxir", "pyxir.onnx")


class Rewriter:
    def __init__(self, model):
        self.model, self.graph = model, model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.versions = {o.domain: o.version for o in model.opset_import}
        self.dpu_ties = any(p.key == "vai_quant_rounding" and p.value == "DPU" for p in model.metadata_props)
        self.nodes, self.count = [], 0

    def value(self, name):
        if name not in self.constants:
            raise ValueError(f"'{name}' is not a constant")
        return numpy_helper.to_array(self.constants[name])

    def scalar(self, name):
        v = self.value(name).reshape(-1)
        if v.size != 1:
            raise ValueError(f"'{name}' is not one number")
        return float(v[0])

    # A float32 constant, or another type.
    def const(self, v, dtype=np.float32):
        self.count += 1
        name = f"standard_{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(v, dtype), name))
        return name

    def op(self, kind, *inputs, output=None, **attributes):
        self.count += 1
        output = output or f"standard_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{kind}_{self.count}", **attributes))
        return output

    def round(self, x, mode, output=None):
        if mode in ("ROUND", "HALF_EVEN"):
            return self.op("Round", x, output=output)
        if mode in ("CEIL", "FLOOR"):
            return self.op({"CEIL": "Ceil", "FLOOR": "Floor"}[mode], x, output=output)
        magnitude = self.op("Abs", x)
        if mode == "UP":
            magnitude = self.op("Ceil", magnitude)
        elif mode == "DOWN":
            magnitude = self.op("Floor", magnitude)
        elif mode == "HALF_UP":
            magnitude = self.op("Floor", self.op("Add", magnitude, self.const(0.5)))
        elif mode == "HALF_DOWN":
            magnitude = self.op("Ceil", self.op("Sub", magnitude, self.const(0.5)))
        else:
            raise ValueError(f"the rounding '{mode}' has no definition")
        return self.op("Mul", self.op("Sign", x), magnitude, output=output)

    @staticmethod
    def ends(bits, signed, narrow):
        if signed:
            return -(2.0 ** (bits - 1)) + (1 if narrow else 0), 2.0 ** (bits - 1) - 1
        return 0.0, 2.0 ** bits - (2 if narrow else 1)

    def clip(self, x, low, high):
        return self.op("Clip", x, self.const(low), self.const(high))

    def sign(self, x, output=None):
        return self.op("Where", self.op("GreaterOrEqual", x, self.const(0)), self.const(1), self.const(-1), output=output)

    def quant(self, node, a):
        x, scale, zero, bits = node.input
        bits, signed, narrow = self.scalar(bits), a.get("signed", 1), a.get("narrow", 0)
        y = self.op("Add", self.op("Div", x, scale), zero)
        if bits == 1 and signed:
            y = self.sign(y)
        else:
            y = self.round(self.clip(y, *self.ends(bits, signed, narrow)), a.get("rounding_mode", b"ROUND").decode())
        self.op("Mul", self.op("Sub", y, zero), scale, output=node.output[0])

    def bipolar(self, node, a):
        x, scale = node.input
        self.op("Mul", self.sign(self.op("Div", x, scale)), scale, output=node.output[0])

    def trunc(self, node, a):
        mode = a.get("rounding_mode", b"FLOOR").decode()
        x, scale, zero = node.input[:3]
        y = self.op("Round", self.op("Add", self.op("Div", x, scale), zero))
        if self.versions.get(node.domain, 1) >= 2:
            out_scale, bits = node.input[4], self.scalar(node.input[5])
            cut = 2.0 ** np.round(np.log2(self.value(out_scale).astype(np.float64) / self.value(scale)))
            y = self.op("Div", y, self.const(cut))
            y = self.round(self.clip(y, *self.ends(bits, a.get("signed", 1), a.get("narrow", 0))), mode)
            y = self.op("Sub", y, self.op("Div", zero, self.const(cut)))
            self.op("Mul", y, out_scale, output=node.output[0])
            return
        cut = 2.0 ** (self.scalar(node.input[3]) - self.scalar(node.input[4]))
        y = self.round(self.op("Div", y, self.const(cut)), mode)
        self.op("Mul", self.op("Sub", y, zero), scale, output=node.output[0])

    def float_quant(self, node, a):
        x, scale = node.input[:2]
        exponent_bits, mantissa, bias, largest = (self.scalar(n) for n in node.input[2:6])
        y = self.op("Div", x, scale)
        magnitude = self.op("Abs", y)
        # 2^(exponent - mantissa) with the exponent of y, but not below that of subnormal numbers.
        step = self.const(2.0 ** (1 - bias - mantissa))
        for e in range(int(2 - bias), int(np.floor(np.log2(largest))) + 1):
            doubled = self.op("Where", self.op("GreaterOrEqual", magnitude, self.const(2.0 ** e)), self.const(2), self.const(1))
            step = self.op("Mul", step, doubled)
        y = self.op("Mul", self.round(self.op("Div", y, step), a.get("rounding_mode", b"ROUND").decode()), step)
        if a.get("saturation", 1):
            y = self.clip(y, -largest, largest)
        else:
            if not (a.get("has_inf", 0) or a.get("has_nan", 0)):
                raise ValueError("neither saturation nor infinity nor NaN")
            beyond = self.op("Greater", self.op("Abs", y), self.const(largest))
            special = self.op("Mul", self.sign(y), self.const(np.inf if a.get("has_inf", 0) else np.nan))
            y = self.op("Where", beyond, special, y)
        self.op("Mul", y, scale, output=node.output[0])

    def multi_threshold(self, node, a):
        x, name = node.input
        thresholds = self.value(name).astype(np.float32)  # [channels or 1, steps]
        layout = a.get("data_layout", b"NCHW").decode()
        after = {"NC": 0, "NCHW": 2, "NHWC": 0, "NCW": 1, "NWC": 0}[layout]
        total = None
        for k in range(thresholds.shape[1]):
            t = thresholds[:, k]
            t = t[0] if t.size == 1 else t.reshape([-1] + [1] * after)
            reached = self.op("Cast", self.op("GreaterOrEqual", x, self.const(t)), to=onnx.TensorProto.FLOAT)
            total = reached if total is None else self.op("Add", total, reached)
        scaled = self.op("Mul", total, self.const(a.get("out_scale", 1.0)))
        self.op("Add", scaled, self.const(a.get("out_bias", 0.0)), output=node.output[0])

    # The integer over 2^position that is nearest to x.
    def fixed(self, x, bits, position, output=None):
        y = self.op("Mul", x, self.const(2.0 ** position))
        up = self.op("Round", y)
        if self.dpu_ties:  # negative ties go up, others to even
            half = self.op("Equal", self.op("Sub", y, self.op("Floor", y)), self.const(0.5))
            tie = self.op("And", half, self.op("Less", y, self.const(0)))
            up = self.op("Where", tie, self.op("Ceil", y), up)
        y = self.clip(up, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
        return self.op("Mul", y, self.const(2.0 ** -position), output=output)

    def pyxir(self, node, a):
        said = [k.decode() for k in a.get("vai_quant", [])]
        numbers = {k: list(a[k]) for k in said}
        inputs = list(node.input)
        given = numbers.get("vai_quant_in", [])
        for i in range(len(given) // 2):
            inputs[i] = self.fixed(inputs[i], *given[2 * i:2 * i + 2])
        for key, i in (("vai_quant_weights", 1), ("vai_quant_biases", 2)):
            if key in numbers:
                bits, position = numbers[key]
                whole = self.value(inputs[i])
                if (whole != np.round(whole)).any() or abs(whole).max(initial=0) > 2 ** (bits - 1):
                    raise ValueError(f"'{inputs[i]}' holds more than integers of {bits} bits")
                inputs[i] = self.const(whole.astype(np.float64) * 2.0 ** -position)
        plain = {k: v for k, v in a.items() if k not in said and k != "vai_quant"}
        if node.op_type == "Pad":
            inputs += [self.const(plain.pop("pads"), np.int64), self.const(plain.pop("value", 0.0))]
        if node.op_type == "Clip":
            raise ValueError("Clip is no layer of PyXIR")
        bits, position = numbers["vai_quant_out"]
        self.fixed(self.op(node.op_type, *inputs, **plain), bits, position, output=node.output[0])

    def rewrite(self):
        kinds = {"Quant": self.quant, "IntQuant": self.quant, "BipolarQuant": self.bipolar, "Trunc": self.trunc,
                 "FloatQuant": self.float_quant, "MultiThreshold": self.multi_threshold}
        for node in self.graph.node:
            attributes = {x.name: helper.get_attribute_value(x) for x in node.attribute}
            if node.domain in PYXIR:
                self.pyxir(node, attributes)
            elif node.domain in QONNX:
                if node.op_type not in kinds:
                    raise ValueError(f"the operator {node.domain}.{node.op_type} has no definition here")
                kinds[node.op_type](node, attributes)
            else:
                self.nodes.append(node)
        nodes = list(self.nodes)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        del self.graph.quantization_annotation[:]
        kept = [o for o in self.model.opset_import if o.domain not in QONNX + PYXIR]
        del self.model.opset_import[:]
        self.model.opset_import.extend(kept)
        if not any(o.domain == "" for o in kept):
            raise ValueError("the file does not say its opset")
        return self.model


def main(arguments):
    if not arguments or len(arguments) % 2:
        print("usage: standard_onnx.py IN.onnx OUT.onnx [IN OUT]...", file=sys.stderr)
        return 2
    for source, target in zip(arguments[::2], arguments[1::2]):
        try:
            onnx.save(Rewriter(onnx.load(source)).rewrite(), target)
        except (ValueError, KeyError, OSError) as error:
            print(f"{source}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
