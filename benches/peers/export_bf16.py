#!/usr/bin/env python3
"""Write the weights of a quantised GGUF model as BF16, in the two formats the engines read.

Every tensor is dequantised to f32 and rounded once to bf16. The same bits then go to

* a Hugging Face directory (config.json, model.safetensors, tokenizer.json, ...), with the
  query and key rows in Hugging Face's order, and
* a GGUF file with the original metadata, matrices in BF16 and norm vectors in F32 (holding
  the bf16 values), with the rows in llama.cpp's order,

so that a difference between two engines is a difference between the engines, not the weights.
The script handles SmolLM2 alone: architecture `llama`, a byte-level BPE tokenizer.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    """The Hugging Face name of a GGUF tensor."""
    stem = name.removesuffix(".weight")
    if stem in TOP_NAMES:
        return TOP_NAMES[stem] + ".weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def hf_row_order(weight, heads):
    """Undo llama.cpp's row order for q and k.

    llama.cpp interleaves the two halves that RoPE rotates (0, d/2, 1, d/2 + 1, ...);
    Hugging Face keeps the halves one after the other.
    """
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def to_bf16(tensor):
    """The tensor of a GGUF reader as torch bf16, rounded to nearest even."""
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    shape = tuple(int(n) for n in reversed(tensor.shape))
    return torch.from_numpy(np.array(values, np.float32).reshape(shape)).bfloat16()


def write_gguf(reader, weights, path):
    """Write `weights` (GGUF names and row order) with the metadata of `reader`."""
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = field.contents()
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType.MOSTLY_BF16)
        sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=sub_type)
    for name, weight in weights.items():
        if weight.dim() == 1:
            writer.add_tensor(name, weight.float().numpy())
        else:
            raw = weight.view(torch.uint8).numpy()
            writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hf_config(meta, tied):
    """config.json in the form the models on the hub use."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta("tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "hidden_size": meta("llama.embedding_length"),
        "intermediate_size": meta("llama.feed_forward_length"),
        "max_position_embeddings": meta("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": meta("llama.attention.head_count"),
        "num_hidden_layers": meta("llama.block_count"),
        "num_key_value_heads": meta("llama.attention.head_count_kv"),
        "pad_token_id": meta("tokenizer.ggml.padding_token_id"),
        # GGUF stores these as f32; the shortest decimal that gives this f32 is the original value.
        "rms_norm_eps": float(str(np.float32(meta("llama.attention.layer_norm_rms_epsilon")))),
        "rope_scaling": None,
        "rope_theta": meta("llama.rope.freq_base"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": meta("llama.vocab_size"),
    }


def build_tokenizer(meta):
    """The byte-level BPE tokenizer from the metadata; `smollm` splits every digit off."""
    if (meta("tokenizer.ggml.model"), meta("tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise SystemExit("only the smollm byte-level BPE tokenizer is handled")
    tokens = meta("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in meta("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = int(gguf.TokenType.CONTROL)
    kinds = zip(tokens, meta("tokenizer.ggml.token_type"))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, kind in kinds if kind == control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[meta("tokenizer.ggml.bos_token_id")],
        eos_token=tokens[meta("tokenizer.ggml.eos_token_id")],
        pad_token=tokens[meta("tokenizer.ggml.padding_token_id")],
        unk_token=tokens[meta("tokenizer.ggml.unknown_token_id")],
        chat_template=meta("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=meta("llama.context_length"),
    )


def write_hf(reader, weights, directory):
    """Write the Hugging Face directory."""

    def meta(key):
        return reader.fields[key].contents()

    heads = {"attn_q": meta("llama.attention.head_count"), "attn_k": meta("llama.attention.head_count_kv")}
    renamed = {}
    for name, weight in weights.items():
        part = name.split(".")[-2]
        if part in heads:
            weight = hf_row_order(weight, heads[part]).contiguous()
        renamed[hf_name(name)] = weight

    directory.mkdir(parents=True, exist_ok=True)
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    config = hf_config(meta, tied="lm_head.weight" not in renamed)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer = build_tokenizer(meta)
    tokenizer.save_pretrained(directory)
    # Newer transformers write the template to a separate file; most readers expect it in the
    # config.
    tokenizer_config_path = directory / "tokenizer_config.json"
    tokenizer_config = json.loads(tokenizer_config_path.read_text())
    tokenizer_config["chat_template"] = tokenizer.chat_template
    tokenizer_config_path.write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def check_same_bits(directory, path, heads):
    """Read both results back and compare every tensor bit by bit."""
    from safetensors.torch import load_file

    stored = load_file(directory / "model.safetensors")
    tensors = gguf.GGUFReader(path).tensors
    assert len(stored) == len(tensors)
    for tensor in tensors:
        weight = to_bf16(tensor)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = hf_row_order(weight, heads[part]).contiguous()
        other = stored[hf_name(tensor.name)]
        assert torch.equal(weight.view(torch.int16), other.view(torch.int16)), tensor.name
    print(f"{len(tensors)} tensors hold the same bits in both formats")


def main():
    """Parse the command line and write both formats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="quantised GGUF file")
    parser.add_argument("--hf", type=Path, required=True, help="Hugging Face directory to write")
    parser.add_argument("--gguf", type=Path, required=True, help="BF16 GGUF file to write")
    args = parser.parse_args()

    reader = gguf.GGUFReader(args.source)
    weights = {tensor.name: to_bf16(tensor) for tensor in reader.tensors}
    write_hf(reader, weights, args.hf)
    write_gguf(reader, weights, args.gguf)
    heads = {
        "attn_q": reader.fields["llama.attention.head_count"].contents(),
        "attn_k": reader.fields["llama.attention.head_count_kv"].contents(),
    }
    check_same_bits(args.hf, args.gguf, heads)


if __name__ == "__main__":
    main()
