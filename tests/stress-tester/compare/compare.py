#!/usr/bin/env python3
"""The stress tester beside other load generators, on a server whose times are known.

A simulated upstream answers every request with its first token after FIRST ms and each further one after BETWEEN ms.
Each program sends the same closed loop to it; what it reports is set beside the truth, as a table of Markdown.

    tests/stress-tester/compare/compare.py --install      # guidellm, aiperf and inference-perf into target/compare
    tests/stress-tester/compare/compare.py                # runs all that are installed

Needs the programs of this repository (`cargo build --bins`), and Python 3.12 or newer for inference-perf.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = ["guidellm", "aiperf", "inference-perf"]
MODEL = "known"
PROMPT = 64  # tokens


def main():
    args = arguments()
    if args.install:
        return install(args)
    with tempfile.TemporaryDirectory() as scratch, Server(args) as server:
        load = Load(args, server.url, pathlib.Path(scratch))
        rows = [("the server's own times", "", truth(args)), sluice_stress(load)]
        for name, run in {"guidellm": guidellm, "aiperf": aiperf, "inference-perf": inference_perf}.items():
            if (args.tools / name / "bin" / name).exists():
                rows.append(run(load))
            else:
                print(f"{name} is not installed in {args.tools}", file=sys.stderr)
    print(table(rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, default=ROOT / "target/compare", help="virtual environments")
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target/debug", help="this repository's programs")
    parser.add_argument("--install", action="store_true", help="install the other programs into --tools")
    parser.add_argument("--python", default=sys.executable, help="interpreter for --install")
    parser.add_argument("--first", type=float, default=300, help="ms to the first token")
    parser.add_argument("--between", type=float, default=30, help="ms between tokens")
    parser.add_argument("--output", type=int, default=33, help="tokens of an answer")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=80)
    return parser.parse_args()


def install(args):
    for name in TOOLS:
        subprocess.run([args.python, "-m", "venv", args.tools / name], check=True)
        subprocess.run([args.tools / name / "bin/pip", "install", "-q", name], check=True)


class Server:
    """The simulated upstream on a free port."""

    def __init__(self, args):
        timing = f"{MODEL}={args.first}ms/{args.between}ms"
        program = args.programs / "simulated-upstream"
        self.process = subprocess.Popen(
            [program, "--listen", "127.0.0.1:0", "--model", timing, "--model", "words=0"], stdout=subprocess.PIPE, text=True
        )
        self.url = re.search(r"http://[0-9.:]+", self.process.stdout.readline())[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Load:
    """The workload, and the programs' directories."""

    def __init__(self, args, url, scratch):
        self.args, self.url, self.scratch = args, url, scratch

    def run(self, tool, command, **options):
        """Runs a program of a virtual environment; its name and version, and the command without private paths."""
        program = self.args.tools / tool / "bin" / tool
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
        done = subprocess.run([program, *command], env=environment, capture_output=True, text=True, **options)
        if done.returncode != 0:
            sys.exit(f"{tool} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        listed = [self.args.tools / tool / "bin/pip", "show", tool]
        version = re.search(r"Version: (\S+)", subprocess.run(listed, capture_output=True, text=True).stdout)[1]
        return f"{tool} {version}", self.shown(tool, command)

    def shown(self, tool, command):
        text = " ".join([tool, *map(str, command)])
        return text.replace(self.url, "$URL").replace(str(self.scratch), "$DIR")

    def tokenizer(self):
        """A byte-level BPE tokenizer, trained on the server's own answers so that each of its tokens is one."""
        folder = self.scratch / "tokenizer"
        if not folder.exists():
            body = {"model": "words", "prompt": "Count.", "max_tokens": 1000}
            texts = [self.answer({**body, "seed": seed}) for seed in range(40)]
            text = json.dumps(texts + [chr(byte) for byte in range(32, 127)])
            subprocess.run([self.args.tools / "guidellm/bin/python3", "-c", TRAIN, folder], input=text, text=True, check=True)
        return folder

    def answer(self, body):
        request = urllib.request.Request(f"{self.url}/v1/completions", json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request))["choices"][0]["text"]


# A token is a word or six bytes of one, with the space before it, as the simulated upstream counts them.
TRAIN = r"""
import json, sys
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, decoders, trainers
tokenizer = Tokenizer(models.BPE())
pieces = pre_tokenizers.Split(Regex(r"\s*[^\s]{1,6}"), "isolated")
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=20000, min_frequency=1, show_progress=False, special_tokens=["</s>"],
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator(json.load(sys.stdin), trainer)
from transformers import PreTrainedTokenizerFast
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(sys.argv[1])
"""


def truth(args):
    whole = args.first + (args.output - 1) * args.between
    return {"first": args.first, "between": args.between, "throughput": args.clients * args.output / whole * 1e3}


def sluice_stress(load):
    args = load.args
    command = ["--base-url", load.url, "--protocol", "openai", "--stream", "--model", MODEL, "--prompt-tokens", PROMPT]
    command += ["--max-tokens", args.output, "--ignore-eos", "--concurrency", args.clients, "--requests", args.requests]
    command += ["--gap", 0, "--out", load.scratch / "sluice", "--json"]
    program = args.programs / "sluice-stress"
    done = subprocess.run([program, *map(str, command)], check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip()
    figures = {
        "first": summary["time_to_first_token_seconds"]["average"] * 1e3,
        "between": summary["time_per_output_token_seconds"]["average"] * 1e3,
        "throughput": summary["output_tokens_per_second"],
        "note": "" if summary["client"]["is_valid"] else "marked invalid: the machine was busy",
    }
    return version, load.shown("sluice-stress", command), figures


def guidellm(load):
    args = load.args
    report = load.scratch / "guidellm.json"
    command = ["run", "--backend", f"kind=openai_http,target={load.url},model={MODEL},request_format=/v1/chat/completions"]
    command += ["--profile", f"kind=concurrent,streams={args.clients}"]
    command += ["--constraint", f"kind=max_requests,count={args.requests}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={args.output}"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={load.tokenizer()}"]
    command += ["--output", f"kind=json,path={report}", "--disable-console"]
    name, shown = load.run("guidellm", command)
    metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
    mean = lambda metric: metrics[metric]["successful"]["mean"]
    figures = {
        "first": mean("time_to_first_token_ms"),
        "between": mean("inter_token_latency_ms"),
        "throughput": mean("output_tokens_per_second"),
    }
    return name, shown, figures


def aiperf(load):
    args = load.args
    folder = load.scratch / "aiperf"
    command = ["profile", "--model", MODEL, "--url", load.url, "--endpoint-type", "chat", "--streaming"]
    command += ["--tokenizer", load.tokenizer(), "--isl", PROMPT, "--osl", args.output, "--extra-inputs", "ignore_eos:true"]
    command += ["--concurrency", args.clients, "--request-count", args.requests, "--use-server-token-count"]
    command += ["--artifact-dir", folder, "--ui", "none"]
    name, shown = load.run("aiperf", list(map(str, command)))
    report = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    figures = {
        "first": report["time_to_first_token"]["avg"],
        "between": report["inter_token_latency"]["avg"],
        "throughput": report["output_token_throughput"]["avg"],
    }
    return name, shown, figures


def inference_perf(load):
    args = load.args
    folder = load.scratch / "inference-perf"
    config = {
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": MODEL, "base_url": load.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(load.tokenizer())},
        "data": {
            "type": "random",
            "input_distribution": fixed(PROMPT, args.requests),
            "output_distribution": fixed(args.output, args.requests),
        },
        "load": {
            "type": "concurrent",
            "num_workers": 1,
            "stages": [{"num_requests": args.requests, "concurrency_level": args.clients}],
        },
        "report": {"request_lifecycle": {"summary": True, "per_stage": True, "per_request": False}},
        "storage": {"local_storage": {"path": str(folder)}},
    }
    file = load.scratch / "inference-perf.json"  # JSON is YAML
    file.write_text(json.dumps(config))
    name, _ = load.run("inference-perf", ["--config_file", file])
    report = json.loads(next(folder.rglob("summary_lifecycle_metrics.json")).read_text())["successes"]
    mean = lambda metric: report["latency"][metric]["mean"] * 1e3
    figures = {
        "first": mean("time_to_first_token"),
        "between": mean("time_per_output_token"),
        "throughput": report["throughput"]["output_tokens_per_sec"],
    }
    shown = {key: config[key] for key in ("api", "load")}
    return name, f"inference-perf --config_file FILE, with {json.dumps(shown)}", figures


def fixed(count, requests):
    return {"min": count, "max": count, "mean": count, "std_dev": 0, "total_count": requests}


def table(rows):
    (_, _, true), lines = rows[0], ["| program | first token, ms | | between tokens, ms | | tokens/s | | |", "|---|---|---|---|---|---|---|---|"]
    for name, _, figures in rows:
        cells = []
        for key in ("first", "between", "throughput"):
            off = figures[key] / true[key] - 1
            cells += [f"{figures[key]:.2f}", f"{off:+.1%}".replace("%", " %") if figures is not true else ""]
        lines.append(f"| {name} | {' | '.join(cells)} | {figures.get('note', '')} |")
    commands = [f"    {command}" for _, command, _ in rows[1:]]
    return "\n".join([*lines, "", *commands])


if __name__ == "__main__":
    main()
