#!/usr/bin/env python3
"""Measures attention and matrix products of other libraries on this GPU, for comparison with `benches/gpu`.

torch's scaled_dot_product_attention and its matrix products (cuBLAS); transformers' paged attention, FlashInfer and
FlashAttention 3 where they can be imported (README.md says how to carry the last two). Seeds are fixed, every output is compared with float32, times are medians
of CUDA events over calls that alternate between two caches (weights: over 256 MB of copies), so that L2 holds neither.
The tables have the form of `benches/gpu`. `--device cpu` checks that the script runs, in tiny sizes.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
import traceback
from dataclasses import dataclass
from types import SimpleNamespace

import torch

PAGE = 16
LAYERS = 2
TOLERANCE = 0.02
MODELS = {
    # hidden, query heads, KV heads, head_dim, inner, vocabulary
    "llama-3.2-1b": (2048, 32, 8, 64, 8192, 128256),
    "llama-3.1-8b": (4096, 32, 8, 128, 14336, 128256),
    "qwen2.5-7b": (3584, 28, 4, 128, 18944, 152064),
}


@dataclass
class Sizes:
    """How large everything is."""

    n_seqs: int = 32
    n_heads: int = 32
    n_kv_heads: int = 8
    head_dim: int = 128
    contexts: tuple = (4096, 8192, 16384, 32768)
    verified: tuple = (2, 4, 8)
    models: tuple = tuple(MODELS)
    n_rows: tuple = (1, 8, 32, 64, 256, 2048)
    copied_bytes: int = 1 << 30
    weight_bytes: int = 256 << 20


TINY = Sizes(2, 4, 2, 32, (96, 560), (2,), ("tiny",), (1, 8), 1 << 20, 1)


def seconds_each(device, enqueue):
    """Median seconds of one call of enqueue(i), many of which are on their way at a time."""

    def run(n):
        if device.type == "cpu":
            start = time.perf_counter()
            for i in range(n):
                enqueue(i)
            return (time.perf_counter() - start) / n
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for i in range(n):
            enqueue(i)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / n / 1e3

    run(1)
    estimate = run(2)
    n = int(min(max(0.02 / max(estimate, 1e-9), 1), 400))
    return statistics.median(run(n) for _ in range(5))


def check(label, expected, got, tolerance=TOLERANCE):
    """Fails unless got is expected up to tolerance of the largest value, and unless the check can tell values apart."""
    expected, got = expected.float().flatten(), got.float().flatten()
    size = expected.abs().max()
    error = ((expected - got).abs().max() / size).item()
    other = ((expected - got.roll(1)).abs().max() / size).item()
    if not error <= tolerance:
        raise AssertionError(f"{label}: an error of {error:.4f}, {tolerance} is allowed")
    if not other > 4 * tolerance:
        raise AssertionError(f"{label}: the check cannot tell values apart")


class Caches:
    """Paged caches of two layers, in scattered pages, and queries against their ends."""

    def __init__(self, sizes, device, context):
        self.sizes, self.device, self.context = sizes, device, context
        generator = torch.Generator(device).manual_seed(1)
        n_pages = sizes.n_seqs * context // PAGE
        shape = (n_pages, 2, PAGE, sizes.n_kv_heads, sizes.head_dim)
        self.pages = [torch.empty(shape, dtype=torch.bfloat16, device=device) for _ in range(LAYERS)]
        for pages in self.pages:
            pages.normal_(generator=generator)
        order = torch.randperm(n_pages, generator=torch.Generator().manual_seed(2))
        self.tables = order.view(sizes.n_seqs, -1).to(device=device, dtype=torch.int32)
        self.generator = generator

    def queries(self, n_rows):
        s = self.sizes
        shape = (s.n_seqs, n_rows, s.n_heads, s.head_dim)
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.bfloat16)

    def contiguous(self, layer):
        """Keys and values of a layer as [sequence, KV head, token, value]."""
        s = self.sizes
        parts = []
        for part in range(2):
            rows = self.pages[layer][:, part][self.tables.long()]
            rows = rows.reshape(s.n_seqs, self.context, s.n_kv_heads, s.head_dim)
            parts.append(rows.transpose(1, 2).contiguous())
        return parts

    def expected(self, q, seq):
        """Output of all rows of a sequence in the first layer, in float32; rows are the last positions."""
        s = self.sizes
        pages = self.pages[0][self.tables[seq].long()].float()
        k, v = (pages[:, part].reshape(self.context, s.n_kv_heads, s.head_dim) for part in range(2))
        group = s.n_heads // s.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("rhd,thd->hrt", q[seq].float(), k) / s.head_dim**0.5
        n_rows = q.shape[1]
        ends = torch.arange(self.context - n_rows, self.context, device=self.device)
        later = torch.arange(self.context, device=self.device) > ends[:, None]
        return torch.einsum("hrt,thd->rhd", scores.masked_fill(later, -torch.inf).softmax(-1), v)


def sdpa(caches, n_rows):
    """torch's attention over contiguous caches: it has no pages. Rows see each other by a mask."""
    layers = [caches.contiguous(layer) for layer in range(LAYERS)]
    q = caches.queries(n_rows)
    queries = q.transpose(1, 2).contiguous()
    mask = None
    if n_rows > 1:
        ends = torch.arange(caches.context - n_rows, caches.context, device=caches.device)
        mask = torch.arange(caches.context, device=caches.device) <= ends[:, None]

    def call(i):
        k, v = layers[i % LAYERS]
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(queries, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    return q, call


def flashinfer(caches, n_rows):
    """FlashInfer's paged decode (tensor cores, as for grouped queries), and its paged prefill for several rows."""
    library = importlib.import_module("flashinfer")
    s = caches.sizes
    q = caches.queries(n_rows)
    queries = q.reshape(-1, s.n_heads, s.head_dim)
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device=caches.device)
    n_pages = caches.tables.shape[1]
    ends = torch.arange(s.n_seqs + 1, dtype=torch.int32, device=caches.device)
    indptr, indices = ends * n_pages, caches.tables.flatten()
    last = torch.full((s.n_seqs,), PAGE, dtype=torch.int32, device=caches.device)
    kinds = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
    if n_rows == 1:
        wrapper = library.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
        wrapper.plan(indptr, indices, last, s.n_heads, s.n_kv_heads, s.head_dim, PAGE, **kinds)
    else:
        wrapper = library.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        rows = ends * n_rows
        wrapper.plan(rows, indptr, indices, last, s.n_heads, s.n_kv_heads, s.head_dim, PAGE, causal=True, **kinds)
    return q, lambda i: wrapper.run(queries, caches.pages[i % LAYERS]).view(q.shape)


def flash_attention_3(caches, n_rows):
    """FlashAttention 3 with a block table, as vLLM builds it."""
    library = importlib.import_module("vllm_flash_attn.flash_attn_interface")
    s = caches.sizes
    q = caches.queries(n_rows)
    queries = q.reshape(-1, s.n_heads, s.head_dim)
    ends = torch.arange(s.n_seqs + 1, dtype=torch.int32, device=caches.device) * n_rows
    used = torch.full((s.n_seqs,), caches.context, dtype=torch.int32, device=caches.device)
    parts = [[pages[:, part].contiguous() for part in range(2)] for pages in caches.pages]

    def call(i):
        k, v = parts[i % LAYERS]
        return library.flash_attn_varlen_func(
            q=queries, k=k, v=v, max_seqlen_q=n_rows, cu_seqlens_q=ends, max_seqlen_k=caches.context,
            seqused_k=used, block_table=caches.tables, causal=True, fa_version=3,
        ).view(q.shape)

    return q, call


def transformers_paged(caches, n_rows):
    """The attention of transformers' continuous batching without FlashAttention: it stores the new rows, gathers all pages,
    and asks SDPA for one long sequence in which a mask keeps the sequences apart."""
    library = importlib.import_module("transformers")
    batching = importlib.import_module("transformers.generation.continuous_batching.cache")
    utils = importlib.import_module("transformers.generation.continuous_batching.utils")
    attend = importlib.import_module("transformers.integrations.sdpa_paged").sdpa_attention_paged_forward
    s = caches.sizes
    config = library.LlamaConfig(
        hidden_size=s.n_heads * s.head_dim, num_hidden_layers=LAYERS, num_attention_heads=s.n_heads,
        num_key_value_heads=s.n_kv_heads, head_dim=s.head_dim, attn_implementation="paged|sdpa",
    )
    n_pages, n_queries = caches.tables.numel(), s.n_seqs * n_rows
    wanted = library.ContinuousBatchingConfig(
        block_size=PAGE, num_blocks=n_pages, max_batch_tokens=n_queries, max_memory_percent=0.9,
    )
    one = SimpleNamespace(tp_size=1)
    cache = batching.PagedAttentionCache(config, wanted, caches.device, one, {}, torch.bfloat16)
    places = (caches.tables.long()[:, :, None] * PAGE + torch.arange(PAGE, device=caches.device)).view(s.n_seqs, -1)
    read, write = places.flatten(), places[:, -n_rows:].flatten()
    new = []
    for layer, pages in enumerate(caches.pages):
        rows = [pages[:, part].reshape(-1, s.n_kv_heads, s.head_dim) for part in range(2)]
        for stored, part in zip((cache.key_cache[layer], cache.value_cache[layer]), rows):
            stored[:n_pages * PAGE] = part
            # NaN until the measured call stores `new` here.
            stored[write] = torch.nan
        new.append([part[write].transpose(0, 1).unsqueeze(0) for part in rows])
    mask = torch.full((1, 1, n_queries, read.numel()), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16,
                      device=caches.device)
    ends = range(s.n_seqs + 1)
    utils.build_attention_mask(mask, [n_rows * i for i in ends], [caches.context * i for i in ends])
    q = caches.queries(n_rows)
    queries = q.reshape(-1, s.n_heads, s.head_dim).transpose(0, 1).unsqueeze(0)
    group = s.n_heads // s.n_kv_heads
    layers = [SimpleNamespace(layer_idx=i, num_key_value_groups=group) for i in range(LAYERS)]

    def call(i):
        output, _ = attend(
            layers[i % LAYERS], queries, *new[i % LAYERS], mask, scaling=s.head_dim**-0.5, cache=cache,
            read_index=[read], write_index=[write],
        )
        return output.view(q.shape)

    return q, call


PEERS = {
    "torch SDPA": sdpa,
    "transformers paged SDPA": transformers_paged,
    "FlashInfer": flashinfer,
    "FlashAttention 3": flash_attention_3,
}


def attention(sizes, device, bandwidth):
    """Decodes and verifications of every library that is here."""
    missing, broken = set(), set()
    print("\n| peer attention | context | rows | µs | GB/s | of copy bandwidth | of its decode |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for context in sizes.contexts:
        caches = Caches(sizes, device, context)
        n_bytes = sizes.n_seqs * context * 2 * sizes.n_kv_heads * sizes.head_dim * 2
        for name, peer in PEERS.items():
            one = None
            for n_rows in (1, *sizes.verified):
                if name in missing:
                    continue
                try:
                    q, call = peer(caches, n_rows)
                    output = call(0)
                    for seq in (0, sizes.n_seqs - 1):
                        check(f"{name}, {context}, {n_rows} rows", caches.expected(q, seq), output[seq])
                    seconds = seconds_each(device, call)
                except ImportError as error:
                    missing.add(name)
                    print(f"| {name} | all | all | not there: {error} | | | |", flush=True)
                    continue
                except Exception as error:  # a failing peer must not end the other measurements
                    broken.add(name)
                    print(f"broken: {name}, {context}, {n_rows} rows: {error!r}", flush=True)
                    traceback.print_exc()
                    continue
                one = one or seconds
                print(
                    f"| {name} | {context} | {n_rows} | {seconds * 1e6:.1f} | {n_bytes / seconds / 1e9:.1f} "
                    f"| {n_bytes / seconds / bandwidth * 100:.1f} % | {seconds / one:.3f}x |",
                    flush=True,
                )
        del caches
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return broken


def products(sizes, device, bandwidth):
    """Matrix products of the models' shapes by torch, which asks cuBLAS."""
    print("\n| peer product | out × in | rows | µs | GB/s | of copy bandwidth | TFLOP/s |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    for model in sizes.models:
        hidden, n_heads, n_kv_heads, dim, inner, vocabulary = MODELS.get(model, (64, 4, 2, 16, 128, 200))
        shapes = {
            "qkv": ((n_heads + 2 * n_kv_heads) * dim, hidden),
            "out": (hidden, n_heads * dim),
            "gate, up": (2 * inner, hidden),
            "down": (hidden, inner),
            "head": (vocabulary, hidden),
        }
        for name, (n_out, n_in) in shapes.items():
            generator = torch.Generator(device).manual_seed(3)
            n_bytes = 2 * n_out * n_in
            n_copies = -(-sizes.weight_bytes // n_bytes)
            weight = torch.randn((n_out, n_in), generator=generator, device=device, dtype=torch.bfloat16)
            weights = [weight] + [weight.clone() for _ in range(n_copies - 1)]
            for n_rows in sizes.n_rows:
                if name == "head" and n_rows > 256:
                    continue
                x = torch.randn((n_rows, n_in), generator=generator, device=device, dtype=torch.bfloat16)
                out = torch.empty((n_rows, n_out), device=device, dtype=torch.bfloat16)
                torch.mm(x, weights[-1].t(), out=out)
                check(f"{model} {name}, {n_rows} rows", x[-1].float() @ weight[:64].float().t(), out[-1, :64])
                seconds = seconds_each(device, lambda i: torch.mm(x, weights[i % n_copies].t(), out=out))
                moved = n_bytes + n_rows * 2 * (n_in + n_out)
                print(
                    f"| cuBLAS {model} {name} | {n_out} × {n_in} | {n_rows} | {seconds * 1e6:.1f} | {moved / seconds / 1e9:.1f} "
                    f"| {moved / seconds / bandwidth * 100:.1f} % | {2 * n_rows * n_out * n_in / seconds / 1e12:.1f} |",
                    flush=True,
                )


def main():
    """Parse the command line and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a look in tiny sizes")
    parser.add_argument("--path", action="append", default=[], help="a folder with libraries that were carried")
    parser.add_argument("parts", nargs="*", help="attention, products; both by default")
    arguments = parser.parse_args()
    carried = os.environ.get("GALLEY_PEERS", "").split(os.pathsep)
    sys.path[:0] = arguments.path + [folder for folder in carried if folder]
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU: --device cpu looks whether this runs")
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    sizes = Sizes() if device.type == "cuda" else TINY
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU, tiny sizes"
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {name}")
    source = torch.ones(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * sizes.copied_bytes / seconds_each(device, lambda i: target.copy_(source))
    if not torch.equal(source, target):
        sys.exit("a copy differs from its source")
    print(f"peer copy bandwidth: {bandwidth / 1e9:.1f} GB/s (read and written)", flush=True)
    del source, target
    parts = arguments.parts or ["attention", "products"]
    broken = attention(sizes, device, bandwidth) if "attention" in parts else set()
    if "products" in parts:
        products(sizes, device, bandwidth)
    if broken:
        sys.exit(f"broken: {', '.join(sorted(broken))}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
