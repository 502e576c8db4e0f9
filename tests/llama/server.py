#!/usr/bin/env python3
"""llama.cpp's own HTTP server, from the xllamacpp package, until SIGTERM or SIGINT.

The package has builds for x86-64 and arm64 and selects the CPU's kernels at run time, so it needs no particular
instruction set. The first line on standard output is the server's URL, printed once the model is loaded.
"""
import argparse
import signal
import threading

import xllamacpp

arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("model", help="GGUF file")
arguments.add_argument("--alias", default="tiny", help="the model's name in requests")
arguments.add_argument("--host", default="127.0.0.1")
arguments.add_argument("--port", type=int, default=0, help="0 selects a free one")
arguments.add_argument("--slots", type=int, default=4, help="requests that run at once")
arguments.add_argument("--context", type=int, default=131072, help="tokens of all slots together")
arguments.add_argument("--api-key")
arguments = arguments.parse_args()

params = xllamacpp.CommonParams()
params.model.path = arguments.model
params.model_alias = {arguments.alias}
params.hostnames = [arguments.host]
params.port = arguments.port
params.n_ctx = arguments.context
params.n_parallel = arguments.slots
params.embedding = True
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.endpoint_metrics = True
params.use_jinja = True
params.ui = False
# The model is tiny: one thread computes it faster than two that wait for each other.
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
if arguments.api_key:
    params.api_keys = [arguments.api_key]

stop = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stop.set())
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
stop.wait()
