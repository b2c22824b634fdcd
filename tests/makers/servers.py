"""A real OpenAI-compatible server for the tests: llama.cpp's, on loopback, with a small Llama in float32.

1. `write_gguf`: a Hugging Face Llama → GGUF, the format that llama.cpp reads. Rotary dimensions stand in pairs there
   and in halves here, so the rows of Q and K change places, head by head.
2. `llama_server`: the server in a process of its own, which ends with the test and, should the test be killed, with it.
   It serves the GGUF file that stands beside the model's folder under its name, as real models have one, else what
   `write_gguf` makes of the folder.
3. `counting_proxy`: stands between a client and a server, and counts the prompts that go by.

Prompts as token ids bypass the server's tokenizer, so they mean exactly what they mean to transformers. Text goes
through llama.cpp's own splitting of words, which isolates digits as ours does, but not every tab and newline.

    cd tests && python -m makers.servers MODEL.gguf
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from makers.faults import prompts_of, serving

READY = 60.0
"""Longest wait for a server to start [s]."""
SLOTS = 4
"""Prompts that the server works on at once."""


def write_gguf(folder: Path, file: Path) -> None:
    """Write the Llama of a Hugging Face folder as GGUF, in float32."""
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = GGUFWriter(str(file), "llama")
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_vocabulary(writer, folder)
    for name, weight in load_file(folder / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _pair_rotary(weight, heads if "q_proj" in name else shared)
        writer.add_tensor(_gguf_name(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, folder: Path) -> None:
    from gguf import TokenType

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("refact")  # Splits words as GPT-2 does, and every digit by itself.
    writer.add_token_list(pieces)
    writer.add_token_types([TokenType.CONTROL if piece in special else TokenType.NORMAL for piece in pieces])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(special["<bos>"])
    writer.add_eos_token_id(special["<eos>"])
    writer.add_add_bos_token(False)  # The chat template writes it.
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _pair_rotary(weight: Any, heads: int) -> Any:
    """Rows (head, half, dimension) → (head, dimension, half): llama.cpp turns neighbours where we turn halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns).copy()


def _gguf_name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{parts[part]}.weight"


@dataclass(frozen=True)
class Served:
    """A server in a process of its own."""

    base_url: str
    process: subprocess.Popen[bytes]


@contextmanager
def llama_server(model_folder: Path, work: Path) -> Iterator[str]:
    """The base URL of a llama.cpp server of the model, with files in the folder `work`."""
    with llama_process(model_folder, work) as served:
        yield served.base_url


@contextmanager
def llama_process(model_folder: Path, work: Path) -> Iterator[Served]:
    """As `llama_server`, with its process, for tests that kill it."""
    file = model_folder.with_name(f"{model_folder.name}.gguf")
    if not file.is_file():
        file = work / "model.gguf"
        write_gguf(model_folder, file)
    with (work / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "makers.servers", str(file.resolve())],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None and process.stdin is not None
    watch = threading.Timer(READY, process.kill)
    watch.start()
    try:
        address = ""
        for line in process.stdout:
            if line.startswith(b"address "):
                address = line.split()[1].decode()
                break
        assert address, f"llama.cpp's server did not start: {(work / 'server.log').read_text(errors='replace')[-2000:]}"
        watch.cancel()
        yield Served(f"{address}/v1", process)
    finally:
        watch.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@dataclass
class Counts:
    """What went by a `counting_proxy`."""

    base_url: str
    requests: int = 0
    prompts: Counter[str] = field(default_factory=Counter)
    """How often each prompt was asked: a prompt of ids or text, or the messages of a chat, as JSON."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often each prompt was answered, as its asker was told."""
    at_once: int = 0
    """Most prompts in flight at the same time."""
    flying: int = 0
    """Prompts that came and are not answered yet, or whose asker went away before they were."""

    @property
    def total(self) -> int:
        """All prompts, each one of a list counted."""
        return self.prompts.total()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counts: Counts
    lock: threading.Lock
    host: str

    def log_message(self, *_: object) -> None:
        """Nothing: counts are kept."""

    def do_GET(self) -> None:
        self._forward(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        prompts = prompts_of(json.loads(body))
        with self.lock:
            self.counts.requests += 1
            self.counts.prompts.update(prompts)
            self.counts.flying += len(prompts)
            self.counts.at_once = max(self.counts.at_once, self.counts.flying)
        try:
            if self._forward(body):
                with self.lock:
                    self.counts.answered.update(prompts)
        finally:
            with self.lock:
                self.counts.flying -= len(prompts)

    def _forward(self, body: bytes) -> bool:
        """Whether the whole answer went back."""
        connection = HTTPConnection(self.host, timeout=900)
        headers = {"Content-Type": "application/json", "Authorization": self.headers.get("Authorization", "")}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return answer.status == 200
        except (OSError, HTTPException):
            self.close_connection = True  # Either side went away; the other is to see it.
            return False
        finally:
            connection.close()


@contextmanager
def counting_proxy(target: str) -> Iterator[Counts]:
    """A server on loopback that hands everything on to the base URL `target`, and the counts of what it handed on."""
    counts = Counts("")
    parts = urlsplit(target)
    handler = type("Proxy", (_Proxy,), {"counts": counts, "lock": threading.Lock(), "host": parts.netloc})
    with serving(handler) as address:
        counts.base_url = f"{address}{parts.path}"
        yield counts


def _serve(file: str) -> None:
    """Serve until the standard input closes, which it does when whoever started us ends, however that came."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.model_alias = {"tiny"}
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * 4096
    params.cache_ram_mib = 0  # Prefixes are reused within a slot; keeping those of all past prompts takes gigabytes.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    # Float32 throughout, so that the answers are those of transformers as nearly as its kernels allow.
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(f"\naddress {server.listening_address}", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
