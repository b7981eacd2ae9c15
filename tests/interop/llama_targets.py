# Exports one project of a Llama to every target that can hold it and prints a table in Markdown: the perplexity on the screen,
# that of an independent reader of the file (llama_readers.py), and how many of its predictions are the screen's.
#   python3 llama_targets.py PROJECT OUT_FOLDER --text FILE --tokenizer tokenizer.bin [--separator S] [--begin N]
#                            [--model FILE.onnx] [--cli PROGRAM] [--only NAME]...
# The project is left as it is: every row works on a copy beside it. Exit codes: 0 done, 1 a row differs, 77 no NumPy.
import argparse
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
W8 = "rules: [{select: {sites: [weight], kinds: [compute]}, preset: int8-weight-per-channel}]\n"
WORD8 = W8.replace("}]", "}, {select: {sites: [input], kinds: [compute], operand: 0}, preset: uint8-activation}]")
DYNAMIC8 = WORD8.replace("uint8-activation", "uint8-activation-dynamic")
W4 = "rules: [{select: {sites: [weight], kinds: [compute]}, preset: int4-weight-per-channel-mse}]\n"

# Name, target, recipe (built-in or its text), options, file.
ROWS = [
    ("float", "onnx", "rules: []\n", [], "m.onnx"),
    ("groups of 32", "onnx-qdq", "llm-w4", [], "m.onnx"),
    ("groups of 32, native", "onnx-qdq", "llm-w4", ["native=true"], "m.onnx"),
    ("W8A8, static", "onnx-qdq", "w8a8", [], "m.onnx"),
    ("W8A8, dynamic", "onnx-qdq", DYNAMIC8, [], "m.onnx"),
    ("W8A8", "onnx-qoperator", "w8a8", ["mixed=true"], "m.onnx"),
    ("W4", "qonnx", W4, [], "m.onnx"),
    ("W8A8", "qonnx", "w8a8", [], "m.onnx"),
    ("W8A8", "tvm-relax-qdq", "w8a8", [], "m.onnx"),
    ("W8A8", "torchscript-qcdq", "w8a8", [], "m.pt"),
    ("W8A8", "torchscript-quantized", "w8a8", [], "m.pt"),
    ("groups of 32", "compressed-tensors", "llm-w4", [], "m.safetensors"),
    ("groups of 32", "gptq", "llm-w4", [], "m.safetensors"),
    ("groups of 32, version 2", "gptq", "llm-w4", ["checkpoint_format=gptq_v2"], "m.safetensors"),
    ("groups of 32", "awq", "llm-w4", [], "m.safetensors"),
    ("groups of 32", "safetensors", "llm-w4", [], "m.safetensors"),
    ("groups of 32", "npz", "llm-w4", [], "m.npz"),
    ("groups of 32", "c-header", "llm-w4", [], "m.h"),
    ("Q8_0", "gguf", "gguf-q8_0", ["form=llama"], "m.gguf"),
    ("groups of 32: Q4_0", "gguf", "llm-w4", ["form=llama"], "m.gguf"),
    ("Q4_K: Q4_1", "gguf", "gguf-q4_k", ["form=llama"], "m.gguf"),
    ("W8A8", "finn", "w8a8", [], "m.onnx"),
    ("int8", "pyxir", "dpu-int8", [], "m.onnx"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("project")
    parser.add_argument("out")
    parser.add_argument("--cli", default=os.path.join(HERE, "../../build/release/bin/quanvas-cli"))
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--separator", default="")
    parser.add_argument("--begin", default="0")
    parser.add_argument("--model", default="")
    args = parser.parse_args()

    def cli(*words):
        done = subprocess.run([*args.cli.split(), *words, "--json", "--quiet"], capture_output=True, text=True)
        try:
            return done.returncode, json.JSONDecoder().raw_decode(done.stdout)[0]  # a report, and perhaps an error behind it
        except ValueError:
            return done.returncode, {"error": {"message": done.stderr.strip().splitlines()[-1:]}}

    def reader(folder, file):
        command = [sys.executable, os.path.join(HERE, "llama_readers.py"), "--json", "--text", args.text,
                   "--tokenizer", args.tokenizer, "--separator", args.separator, "--begin", args.begin, "--screen", folder + "/dump", file]
        if args.model:
            command[3:3] = ["--model", args.model]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 77:
            sys.exit(77)
        return json.loads(done.stdout) if done.stdout else {"error": done.stderr}

    failed = False
    print("| target | weights | quantizers equal | screen | reader | perplexity there | equal predictions | bytes |")
    print("|---|---|---|---|---|---|---|---|")
    for i, (name, target, recipe, options, file) in enumerate(ROWS):
        if args.only and target not in args.only:
            continue
        folder = os.path.abspath(os.path.join(args.out, "%02d-%s" % (i, target)))
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        copy = args.project[:-len(".quanvas")] + "-copy.quanvas"

        def line(*cells):
            print("| %s |" % " | ".join(("`%s`" % target, name) + cells))
            sys.stdout.flush()

        for part in ("", "-wal", "-shm"):
            if os.path.exists(args.project + part):
                shutil.copy(args.project + part, copy + part)
        shutil.rmtree(copy + ".data", ignore_errors=True)
        shutil.copytree(args.project + ".data", copy + ".data")
        if "\n" in recipe:
            with open(folder + "/recipe.yaml", "w") as f:
                f.write("name: own\n" + recipe + "calibration: {samples: 128, seed: 0}\n")
            recipe = folder + "/recipe.yaml"
        given = [w for o in options for w in ("--option", o)]
        if "form=llama" in options:
            given += ["--option", "tokenizer=" + args.tokenizer]
        code, said = cli("recipe", copy, "--set", recipe)
        if code:
            line("recipe: %s" % said["error"]["message"])
            failed = True
            continue
        cli("calibrate", copy)
        code, refusals = cli("export", copy, "--target", target, "--fix", *given)
        if code:
            line("refused: " + str(refusals["error"]["message"] if isinstance(refusals, dict) else "%d quantizers" % len(refusals)))
            continue
        code, run = cli("quantize", copy)
        if code:
            line("not quantized: %s" % run["error"]["message"])
            failed = True
            continue
        path = folder + "/" + file
        code, report = cli("export", copy, "--target", target, "--run", str(run["id"]), "--out", path, *given)
        if "audit" not in report:
            line("not written: %s" % report["error"]["message"])
            failed = True
            continue
        cli("dump", copy, "--run", str(run["id"]), "--out", folder + "/dump")
        read = reader(folder, path)
        equal = "%d of %d" % (sum(r["equal"] for r in report["audit"]), len(report["audit"]))
        screen = "%.4f" % run["accuracy"]["perplexity"]
        size = format(read.get("bytes", 0), ",")
        if "perplexity" not in read:
            why = "not installed: " + read["skipped"] if "skipped" in read else str(read["error"])[:200]
            line(equal, screen, why, "", "", size)
            failed = failed or "skipped" not in read
            continue
        share = 100.0 * read["equal"] / read["of"]
        # With activations in 8 bits one tie at the first layers is a third of the codes at the last.
        failed = failed or (share < 99.9 and "A8" not in name and name != "int8")
        predictions = "%.2f %% (%d of %d)" % (share, read["equal"], read["of"])
        line(equal, screen, read["reader"], "%.4f" % read["perplexity"], predictions, size)
        for part in ("", "-wal", "-shm"):
            if os.path.exists(copy + part):
                os.remove(copy + part)
        shutil.rmtree(copy + ".data", ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
