//! Checks of the CUDA kernels that need no GPU. They compile without a warning, registers suffice, and the kernels use
//! tensor cores and asynchronous copies. A binary with the kernels starts without a driver, and the backend that drives
//! a GPU compiles.

use crate::cuda::program;
use crate::shell::{cargo, command, output, root, run as run_command, target};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The compute capabilities of the machine code in releases, as in `kernels-cu/build/nvcc.rs`.
const ARCHS: [&str; 3] = ["80", "89", "90"];

/// Compilation units that multiply on tensor cores and copy operands to shared memory asynchronously.
const TENSOR_UNITS: [&str; 2] = ["attention", "linear"];

/// HMMA: products on tensor cores. LDSM: their operands from shared memory. LDGSTS: asynchronous copies from global to
/// shared memory that bypass the registers.
const TENSOR_INSTRUCTIONS: [&str; 3] = ["HMMA", "LDSM", "LDGSTS"];

pub(crate) fn run() -> Result<()> {
    let tools = (program("nvcc")?, program("cuobjdump")?);
    let out = target().join("kernels");
    fs::create_dir_all(&out)?;
    let units = units()?;
    let jobs: Vec<_> =
        units.iter().flat_map(|unit| ARCHS.map(|arch| (unit.as_str(), arch))).collect();
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut complaints = Vec::new();
    println!("{:<70} {:>4} {:>5} {:>7} {:>5}", "kernel", "arch", "regs", "shared", "local");
    for jobs in jobs.chunks(n_threads) {
        let reports: Vec<Result<CompilerReport>> = std::thread::scope(|scope| {
            let work = |&(unit, arch)| {
                scope.spawn({
                    let (tools, out) = (&tools, &out);
                    move || inspect(tools, out, unit, arch)
                })
            };
            let workers: Vec<_> = jobs.iter().map(work).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        for (&(unit, arch), report) in jobs.iter().zip(reports) {
            let report = report.with_context(|| format!("{unit} for sm_{arch}"))?;
            for kernel in &report.kernels {
                let Kernel { name, registers, shared, local } = kernel;
                println!("{name:<70} {arch:>4} {registers:>5} {shared:>7} {local:>5}");
            }
            complaints.extend(
                complain(unit, &report)
                    .map(|complaint| format!("{unit} for sm_{arch}: {complaint}")),
            );
        }
    }
    ensure!(complaints.is_empty(), "kernels are not as they should be:\n{}", complaints.join("\n"));
    // These tests call the kernels where there may be no driver, and expect a clean error.
    run_command(cargo("test --quiet --locked --package galley-kernels-cu --features cuda"))?;
    // No other stage of CI compiles the backend that drives a GPU, or the choice of a GPU.
    let rest = "--package galley --package galley-backend --features galley/cuda --tests";
    // Not with clippy: cargo would run the build scripts, and with them nvcc, once more.
    run_command(cargo(&format!("check --quiet --locked {rest}")))
}

/// The names of the compilation units.
fn units() -> Result<Vec<String>> {
    let files = fs::read_dir(root().join("kernels-cu/cu")).context("kernels-cu/cu")?;
    let paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let sources = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "cu"));
    let mut names: Vec<_> =
        sources.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The result of compiling one unit.
struct CompilerReport {
    kernels: Vec<Kernel>,
    /// The machine code as text.
    code: String,
}

/// Resources of a kernel: registers per thread, bytes of static shared memory per block (from sm_90 on, with
/// the 1024 bytes that the system reserves), and bytes of local memory per thread. Local memory holds values
/// that do not fit into registers (spills) and arrays that are indexed at run time (a stack).
#[derive(Debug, PartialEq)]
struct Kernel {
    name: String,
    registers: u32,
    shared: u32,
    local: u32,
}

fn inspect(
    (nvcc, cuobjdump): &(PathBuf, PathBuf),
    out: &Path,
    unit: &str,
    arch: &str,
) -> Result<CompilerReport> {
    let cubin = out.join(format!("{unit}.{arch}.cubin"));
    let arch = format!("-arch=sm_{arch}");
    let source = format!("kernels-cu/cu/{unit}.cu");
    let flags = ["-std=c++17", "-O3", "-cubin", "-Werror", "all-warnings", "-Ikernels-cu/include"];
    let mut compile = command(&nvcc.to_string_lossy(), flags);
    compile.args([&arch, &source, "-o"]).arg(&cubin);
    run_command(compile)?;
    let dump = |option| {
        output({
            let mut dump = command(&cuobjdump.to_string_lossy(), [option]);
            dump.arg(&cubin);
            dump
        })
    };
    let kernels = kernels(&dump("--dump-resource-usage")?);
    let code = if kernels.is_empty() { String::new() } else { dump("--dump-sass")? };
    Ok(CompilerReport { kernels, code })
}

/// Parses the output of `cuobjdump --dump-resource-usage`: for each kernel a line " Function NAME:" and a line
/// "  REG:32 STACK:0 SHARED:0 LOCAL:0 …".
fn kernels(text: &str) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    let mut name = "";
    for line in text.lines() {
        let line = line.trim();
        if let Some(function) = line.strip_prefix("Function ") {
            name = function.trim_end_matches(':');
        } else if line.starts_with("REG:") {
            let number = |field: &str| {
                let mut words = line.split_whitespace();
                words
                    .find_map(|word| word.strip_prefix(field)?.strip_prefix(':')?.parse().ok())
                    .unwrap_or(0)
            };
            kernels.push(Kernel {
                name: short(name),
                registers: number("REG"),
                shared: number("SHARED"),
                local: number("STACK") + number("LOCAL"),
            });
        }
    }
    kernels
}

/// The kernel and its template arguments, from a mangled name.
fn short(name: &str) -> String {
    let Some(rest) = name.strip_prefix("_ZN") else { return name.to_owned() };
    // The first identifier is the anonymous namespace; its name is only a hash.
    let Some((_, rest)) = identifier(rest) else { return name.to_owned() };
    let Some((kernel, rest)) = identifier(rest) else { return name.to_owned() };
    let arguments = rest.strip_prefix('I').and_then(|rest| rest.split_once("EE"));
    let Some((arguments, _)) = arguments else { return kernel.to_owned() };
    let numbers: Vec<_> =
        arguments.split('E').map(|text| text.trim_start_matches(char::is_alphabetic)).collect();
    format!("{kernel}<{}>", numbers.join(", "))
}

/// An identifier that follows its length, and the rest of the text.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let length = text[..text.len() - rest.len()].parse().ok()?;
    rest.split_at_checked(length)
}

fn complain<'a>(unit: &'a str, report: &'a CompilerReport) -> impl Iterator<Item = String> + 'a {
    let local = report.kernels.iter().filter(|kernel| kernel.local > 0);
    let local =
        local.map(|kernel| format!("{}: {} bytes of local memory", kernel.name, kernel.local));
    let wanted = TENSOR_INSTRUCTIONS.iter().filter(move |_| TENSOR_UNITS.contains(&unit));
    let absent = wanted.filter(|instruction| !report.code.contains(**instruction));
    local.chain(absent.map(|instruction| format!("no {instruction} in its machine code")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "Resource usage:\n Common:\n  GLOBAL:0\n \
        Function _ZN47_GLOBAL__N__0123456789abcdef_01_attention_cu_0456decodeEv:\n  \
        REG:148 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:1000 TEXTURE:0\n";

    #[test]
    fn a_kernel_is_read_from_a_dump() {
        let shown = |name| short(name);
        assert_eq!(shown("_ZN12_GLOBAL__N_16decodeEv"), "decode");
        assert_eq!(shown("_ZN12_GLOBAL__N_16decodeILi64ELb1EEEvi"), "decode<64, 1>");
        assert_eq!(shown("plain"), "plain");
        let found = kernels(DUMP);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].registers, found[0].shared, found[0].local), (148, 1024, 16));
    }

    #[test]
    fn local_memory_and_missing_instructions_are_noticed() {
        let mut report = CompilerReport { kernels: kernels(DUMP), code: "HMMA LDSM LDGSTS".into() };
        assert_eq!(complain("attention", &report).count(), 1);
        report.kernels[0].local = 0;
        assert_eq!(complain("attention", &report).count(), 0);
        report.code = "HMMA LDGSTS".into();
        assert_eq!(
            complain("attention", &report).collect::<Vec<_>>(),
            ["no LDSM in its machine code"]
        );
        assert_eq!(complain("rows", &report).count(), 0);
    }
}
