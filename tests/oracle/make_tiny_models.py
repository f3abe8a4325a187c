#!/usr/bin/env python3
"""Tiny models with random weights, one of each supported family, and their logits by transformers.

Each directory holds config.json, bf16 weights, a tokenizer, and `reference.safetensors` with, for
a short and a long token sequence (`seq0`, `seq1`), computed in float32 with eager attention:

    seqN.tokens       i32 [n]         the sequence
    seqN.positions    i32 [p]         where logits were taken
    seqN.logits       f32 [p, vocab]
    seqN.greedy       i32 [16]        the greedy continuation of the whole sequence
    seqN.greedy_gaps  f32 [16]        distance between the best two logits at each step

The long sequence goes past Mistral's sliding window and past Llama 3's original context length.
The sequences are drawn until every gap is at least `MIN_GAP` and no special token is generated,
so that an engine which rounds differently or stops at an end token still has to produce the same
continuation.

All weights are exact in both bf16 and f16. Beside the directories, `smollm2.gguf` holds the
smollm2 model once more: matrices in F16 (ffn_down in F32), norm vectors in F32.
"""

import argparse
import itertools
import json
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 288
GREEDY_STEPS = 16
MIN_GAP = 0.15
# Length of each sequence, and the positions with logits in the reference.
SEQUENCES = [(7, [0, 3, 6]), (75, [0, 1, 15, 16, 23, 24, 40, 47, 48, 63, 64, 74])]

COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
}
# The older form of these fields, as in most hub models. qwen3 below has the form of transformers 5.
CLASSIC = {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False}

CONFIGS = {
    # Every query head has its own key and value head.
    "llama2": {
        **COMMON,
        **CLASSIC,
        **LLAMA,
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    # Grouped heads, tied embeddings. The 8 wavelengths fall into all three ranges of the scaling.
    "llama3": {
        **COMMON,
        **CLASSIC,
        **LLAMA,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 48,
        },
        "eos_token_id": [0, 2],
        "tie_word_embeddings": True,
    },
    # One key and value head for all query heads, sliding window.
    "mistral": {
        **COMMON,
        **CLASSIC,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "sliding_window": 24,
    },
    # Biases on queries, keys and values; a sliding window that is given but switched off.
    "qwen2": {
        **COMMON,
        **CLASSIC,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 16,
        "max_window_layers": 1,
    },
    # Norms on query and key heads; the heads together are wider than the model.
    "qwen3": {
        **COMMON,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "dtype": "bfloat16",
        "head_dim": 32,
        "layer_types": ["full_attention", "full_attention"],
        "max_window_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    # Tied embeddings, three query heads for each key and value head.
    "smollm2": {
        **COMMON,
        **CLASSIC,
        **LLAMA,
        "hidden_size": 96,
        "intermediate_size": 64,
        "num_attention_heads": 6,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    },
    # No size is a multiple of 16, and the vocabulary is larger than the tokenizer's.
    "odd": {
        **COMMON,
        **CLASSIC,
        **LLAMA,
        "head_dim": 24,
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "vocab_size": 299,
    },
}
SHARDED = "llama3"
IN_GGUF = "smollm2"


def training_text():
    """A few hundred generated sentences, plain and ChatML-like words among them."""
    who = ["the printer", "a reader", "the author", "an editor", "the galley", "user", "assistant", "system"]
    does = ["checks", "corrects", "reads", "prints", "returns", "drafts", "accepts", "rejects"]
    what = ["the page", "every line", "a proof", "the next token", "this block", "the old letter", "its margin"]
    for first, verb, last in itertools.product(who, does, what):
        yield f"{first} {verb} {last}, and then {last} is read again.\n"


def build_tokenizer():
    """A byte-level BPE tokenizer of `VOCABULARY` tokens; digits stand alone, as in SmolLM2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def save_tokenizer(tokenizer, directory):
    """tokenizer.json and tokenizer_config.json with the chat template in the latter."""
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = {
        "add_bos_token": False,
        "bos_token": SPECIAL[1],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[2],
        "model_max_length": COMMON["max_position_embeddings"],
        "pad_token": SPECIAL[0],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def random_weights(model):
    """Random values for every parameter, wide enough that attention and logits are well spread."""
    weights = {}
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") or "layernorm" in name:
            value = torch.empty(parameter.shape).uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            value = torch.empty(parameter.shape).normal_(0.0, 0.5)
        elif "embed_tokens" in name or "lm_head" in name:
            value = torch.empty(parameter.shape).normal_(0.0, 0.3)
        else:
            value = torch.empty(parameter.shape).normal_(0.0, 0.2)
        # Rounded through both formats, so that the value is exact in each.
        weights[name] = value.bfloat16().half().bfloat16()
    return weights


def save_weights(weights, directory, shards):
    """One safetensors file, or several with an index."""
    if shards == 1:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    per_shard = -(-len(names) // shards)
    weight_map = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[shard * per_shard : (shard + 1) * per_shard]}
        save_file(part, directory / file_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file_name))
    total = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


@torch.inference_mode()
def continue_greedily(model, tokens):
    """The greedy continuation, recomputed from the start at every step, and its gaps."""
    tokens, gaps = tokens.clone(), []
    for _ in range(GREEDY_STEPS):
        best = model(tokens[None], use_cache=False).logits[0, -1].topk(2)
        gaps.append(best.values[0] - best.values[1])
        tokens = torch.cat([tokens, best.indices[:1]])
    return tokens[-GREEDY_STEPS:], torch.stack(gaps)


@torch.inference_mode()
def reference(model, generator):
    """The tensors of reference.safetensors."""
    tensors = {}
    for i, (length, positions) in enumerate(SEQUENCES):
        while True:
            tokens = torch.randint(len(SPECIAL), VOCABULARY, (length,), generator=generator)
            greedy, gaps = continue_greedily(model, tokens)
            if gaps.min() >= MIN_GAP and greedy.min() >= len(SPECIAL):
                break
        logits = model(tokens[None], use_cache=False).logits[0]
        tensors[f"seq{i}.tokens"] = tokens.int()
        tensors[f"seq{i}.positions"] = torch.tensor(positions, dtype=torch.int32)
        tensors[f"seq{i}.logits"] = logits[positions].contiguous()
        tensors[f"seq{i}.greedy"] = greedy.int()
        tensors[f"seq{i}.greedy_gaps"] = gaps
    return tensors


def llama_cpp_row_order(weight, heads):
    """Interleave the two halves of each head that RoPE rotates, as llama.cpp stores q and k."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def gguf_writer(config, tokenizer, path, name, file_type):
    """A GGUF file with the metadata of a model of the architecture llama, and no tensors yet."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])

    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in state["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return writer


def finish_gguf(writer):
    """Write the metadata and the added tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(config, weights, tokenizer, path):
    """The same model as a GGUF file."""
    writer = gguf_writer(config, tokenizer, path, "tiny smollm2", gguf.LlamaFileType.MOSTLY_F16)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in weights.items():
        if ".q_proj." in name:
            weight = llama_cpp_row_order(weight, config["num_attention_heads"])
        elif ".k_proj." in name:
            weight = llama_cpp_row_order(weight, config["num_key_value_heads"])
        in_f32 = weight.dim() == 1 or ".down_proj." in name
        weight = weight.float() if in_f32 else weight.half()
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.contiguous().numpy())
    finish_gguf(writer)


def make_model(name, config, tokenizer, directory):
    """Write one model directory and return its weights."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_tokenizer(tokenizer, directory)
    empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32)
    weights = random_weights(empty)
    save_weights(weights, directory, shards=2 if name == SHARDED else 1)

    # The reference loads the written files, so that it also checks them.
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(directory, **options).eval()
    for parameter_name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[parameter_name].float()), parameter_name
    generator = torch.Generator().manual_seed(1)
    save_file(reference(model, generator), directory / "reference.safetensors")
    return weights


def main():
    """Parse the command line and write every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="directory to write the models to")
    parser.add_argument("--only", choices=CONFIGS, nargs="+", default=list(CONFIGS), help="write only these")
    args = parser.parse_args()

    tokenizer = build_tokenizer()
    for index, (name, config) in enumerate(CONFIGS.items()):
        if name not in args.only:
            continue
        torch.manual_seed(index)
        directory = args.output / name
        weights = make_model(name, config, tokenizer, directory)
        if name == IN_GGUF:
            write_gguf(config, weights, tokenizer, args.output / "smollm2.gguf")
        kept = load_file(directory / "reference.safetensors")
        spread = kept["seq1.logits"].std().item()
        size = sum(file.stat().st_size for file in directory.iterdir())
        print(f"{name:8} {size // 1024:4} KiB, logits' standard deviation {spread:.2f}, greedy {kept['seq1.greedy'].tolist()}")


if __name__ == "__main__":
    main()
