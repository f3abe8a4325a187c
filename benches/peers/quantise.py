#!/usr/bin/env python3
"""Write a GGUF model in other types, with llama.cpp's quantiser and its default parameters.

The weights of the source are expanded to f32 and rounded once to bf16: PREFIX-bf16.gguf, the
reference for measurements of accuracy. Every other type is quantised from this file. Matrices whose
width is no multiple of a type's block get the type that llama.cpp chooses instead, so a file can
have several types; the script prints the bytes of each.
"""

import argparse
import collections
import ctypes
import os
from pathlib import Path

import gguf
import llama_cpp

from llamacpp import discard_log


def file_type(name):
    """llama.cpp's number for files of a type such as Q4_K_M."""
    number = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}", None)
    if number is None:
        raise argparse.ArgumentTypeError(f"llama.cpp has no files of the type {name}")
    return number


def quantise(source, number, path, threads):
    """Write `source` as a file of the type with this number. A file that exists stays as it is."""
    if path.exists():
        print(f"{path}: already there")
        return
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = number
    params.nthread = threads
    # The source of the bf16 file is quantised.
    params.allow_requantize = number == llama_cpp.LLAMA_FTYPE_MOSTLY_BF16
    partial = path.with_suffix(".partial")
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp cannot write {source} as {path}")
    partial.rename(path)
    sizes = collections.Counter()
    for tensor in gguf.GGUFReader(path).tensors:
        sizes[tensor.tensor_type.name] += tensor.n_bytes
    print(f"{path}:", ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in sizes.most_common()), flush=True)


def main():
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="GGUF file, quantised or not")
    parser.add_argument("--to", type=Path, required=True, metavar="PREFIX", help="files are PREFIX-TYPE.gguf")
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0"], help="as llama.cpp names files: Q4_K_M, IQ4_NL, ...")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    numbers = {name.lower(): file_type(name) for name in args.types}
    llama_cpp.llama_log_set(discard_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    reference = args.to.with_name(f"{args.to.name}-bf16.gguf")
    quantise(args.source, llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, reference, args.threads)
    for name, number in numbers.items():
        quantise(reference, number, args.to.with_name(f"{args.to.name}-{name}.gguf"), args.threads)


if __name__ == "__main__":
    main()
