//! Compiles the kernels for a GPU: finds nvcc, compiles in parallel, links the runtime statically.
//!
//! nvcc is called directly. The `cc` crate looks for it in fewer places, and for a library with
//! more than one unit it switches to relocatable device code, which is slower.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

type Result<T, E = String> = std::result::Result<T, E>;

/// The oldest CUDA release that supports all of [`ARCHS`], and C++17 as the kernels use it.
const OLDEST: (u32, u32) = (12, 0);

/// Compute capabilities to build machine code for: A100, L4 and RTX 40, H100. The last one is also
/// built as PTX, which the driver of a newer GPU compiles.
const ARCHS: &str = "80,89,90";

/// The folder, below the target folder, where `cargo xtask cuda` installs the toolkit.
const INSTALLED: &str = "tools/cuda/nvidia/cu13";

/// Compiles `units` (name, source) into one library, and tells cargo to link it.
pub(crate) fn compile(units: &[(&str, PathBuf)]) -> Result<()> {
    for name in ["NVCC", "CUDA_HOME", "PATH", "GALLEY_CUDA_ARCHS", "CI", "CXX"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let nvcc = find()?;
    let (major, minor) = checked_version(&nvcc)?;
    println!("cargo:rustc-env=GALLEY_CUDA_RELEASE={major}.{minor}");
    let archs = architectures(&env::var("GALLEY_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.into()))?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo sets it")?);
    let host_compiler = cc::Build::new().cpp(true).get_compiler();
    let one = |(name, source): &(&str, PathBuf)| -> Result<PathBuf> {
        let object = out.join(format!("{name}.o"));
        let mut command = Command::new(&nvcc);
        // `-lineinfo` is for profilers and compute-sanitizer. It changes no machine code.
        command.args(["-c", "-std=c++17", "-O3", "-lineinfo", "-Iinclude"]);
        command.args(["-Xcompiler", "-fPIC,-Wall"]);
        command.arg("-ccbin").arg(host_compiler.path()).args(&archs);
        // Warnings are errors only in CI, with its own nvcc: a newer nvcc may warn about more.
        if env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false") {
            command.args(["-Werror", "all-warnings"]);
        }
        command.arg(source).arg("-o").arg(&object);
        let status = command.status().map_err(|error| format!("{}: {error}", nvcc.display()))?;
        if !status.success() {
            return Err(format!("nvcc failed on {}: {status}\n  {command:?}", source.display()));
        }
        Ok(object)
    };
    let objects = in_parallel(units, one)?;
    cc::Build::new().cpp(true).objects(objects).compile("galley_cuda");
    println!("cargo:rustc-link-search=native={}", runtime_folder(&nvcc)?.display());
    for library in ["static=cudart_static", "dl", "rt", "pthread"] {
        println!("cargo:rustc-link-lib={library}");
    }
    Ok(())
}

/// Runs `work` on every item, on as many threads as cargo allows jobs. Returns the results in
/// order, or the first error.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((i, item)) = Some(next.fetch_add(1, Ordering::Relaxed))
            .and_then(|i| items.get(i).map(|item| (i, item)))
        {
            done.push((i, work(item)));
        }
        done
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..items.len().min(jobs).max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Looks for nvcc in `NVCC`, `CUDA_HOME/bin`, `PATH`, then where `cargo xtask cuda` installs it.
fn find() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(nvcc) = set("NVCC") {
        return if starts(&nvcc) {
            Ok(nvcc)
        } else {
            Err(format!("NVCC is {}, which does not start", nvcc.display()))
        };
    }
    let at_home = set("CUDA_HOME").map(|home| home.join("bin/nvcc"));
    let out = set("OUT_DIR").unwrap_or_default();
    let installed = out.ancestors().map(|folder| folder.join(INSTALLED).join("bin/nvcc"));
    let mut places = at_home.into_iter().chain([PathBuf::from("nvcc")]).chain(installed);
    places.find(|place| starts(place)).ok_or_else(|| {
        format!(
            "feature `cuda` of galley-kernels-cu needs nvcc, CUDA's compiler, and none was found: not by NVCC (the \
             program), in CUDA_HOME/bin, in PATH, or in {INSTALLED}/bin of the target folder. `cargo xtask cuda` \
             installs it there; or install the CUDA toolkit and set one of these"
        )
    })
}

fn starts(nvcc: &Path) -> bool {
    Command::new(nvcc).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn checked_version(nvcc: &Path) -> Result<(u32, u32)> {
    let output = Command::new(nvcc).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (oldest_major, oldest_minor) = OLDEST;
    match version(&text) {
        Some(found) if found >= OLDEST => Ok(found),
        Some((major, minor)) => Err(format!(
            "{} is of CUDA {major}.{minor}; the kernels need {oldest_major}.{oldest_minor} or newer: \
             `cargo xtask cuda` installs one, NVCC or CUDA_HOME name another",
            nvcc.display()
        )),
        None => Err(format!("{} --version names no release:\n{text}", nvcc.display())),
    }
}

/// "Cuda compilation tools, release 13.0, V13.0.88" gives 13 and 0.
fn version(text: &str) -> Option<(u32, u32)> {
    let release = text.split("release ").nth(1)?.split(',').next()?;
    let (major, minor) = release.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The arguments of nvcc for a list such as "80,90": machine code for each, and PTX for the last.
fn architectures(list: &str) -> Result<Vec<String>> {
    let archs: Vec<_> = list.split(',').map(str::trim).collect();
    let fits = |arch: &&str| {
        let digits = arch.strip_suffix('a').unwrap_or(arch);
        digits.parse::<u32>().is_ok_and(|number| number >= 80)
    };
    if let Some(bad) = archs.iter().find(|arch| !fits(arch)) {
        return Err(format!(
            "GALLEY_CUDA_ARCHS={list}: {bad:?} is no compute capability of 80 or more; write them as in {ARCHS:?}"
        ));
    }
    let machine = archs.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
    let last = archs.last().map(|arch| format!("-gencode=arch=compute_{arch},code=compute_{arch}"));
    Ok(machine.chain(last).collect())
}

/// The folder with `libcudart_static.a`: `lib` in wheels, `lib64` or `targets/…/lib` of a toolkit.
fn runtime_folder(nvcc: &Path) -> Result<PathBuf> {
    // Distributions put a link to nvcc into PATH, so the link is resolved.
    let nvcc = match env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("nvcc"))
        .find(|nvcc| nvcc.is_file())
    {
        Some(found) if nvcc == Path::new("nvcc") => found,
        _ => nvcc.to_owned(),
    };
    let nvcc = nvcc.canonicalize().unwrap_or(nvcc);
    let home = nvcc.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let machine = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let machine =
        if machine == "aarch64" { "sbsa-linux".into() } else { format!("{machine}-linux") };
    let places = ["lib64".into(), "lib".into(), format!("targets/{machine}/lib")];
    let mut places = places.iter().map(|place| home.join(place));
    places.find(|place| place.join("libcudart_static.a").is_file()).ok_or_else(|| {
        format!(
            "libcudart_static.a is in none of lib64, lib and targets/{machine}/lib of {}: the CUDA runtime's development \
             files are missing",
            home.display()
        )
    })
}
