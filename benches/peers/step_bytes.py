"""The bytes of a GGUF file that one decode step has to read, as a line of JSON.

    python benches/peers/step_bytes.py FILE.gguf
"""

import json
import sys

import gguf

KV_BYTES = 2  # bytes of a key's or value's element: f16 in llama.cpp, bf16 in Galley


def step_bytes(path):
    """A dictionary of bytes.

    weight_mb       all tensors but an embedding that is not the output head, in MB
    kv_token_bytes  keys and values of a token, all layers
    """
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    total = sum(tensor.n_bytes for tensor in reader.tensors)
    unread = tensors["token_embd.weight"].n_bytes if "output.weight" in tensors else 0
    return {
        "weight_mb": (total - unread) / 1e6,
        "kv_token_bytes": sum(
            int(tensor.shape[1]) * KV_BYTES
            for name, tensor in tensors.items()
            if name.endswith((".attn_k.weight", ".attn_v.weight"))
        ),
    }


if __name__ == "__main__":
    print(json.dumps(step_bytes(sys.argv[1])))
