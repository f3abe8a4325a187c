//! The kernels of the CUDA backend compared with the limits of the GPU:
//! `cargo bench -p galley-benches --features cuda --bench gpu`.
//!
//! `-- --device cuda:0 attention linears` measures only these parts. `--device emulated` (feature
//! `emulate`) checks in tiny sizes that they run. Tables are in Markdown. Every output is checked
//! before it is timed: some rows against float64, others bit for bit against another way to compute
//! them. A wrong answer ends the run.

#[cfg(any(feature = "cuda", feature = "emulate"))]
mod attention;
#[cfg(any(feature = "cuda", feature = "emulate"))]
mod bed;
#[cfg(any(feature = "cuda", feature = "emulate"))]
mod gpu;
#[cfg(any(feature = "cuda", feature = "emulate"))]
mod linears;
#[cfg(any(feature = "cuda", feature = "emulate"))]
mod measure;

#[cfg(any(feature = "cuda", feature = "emulate"))]
fn main() {
    let (device, parts) = arguments(std::env::args().skip(1)).unwrap_or_else(|error| {
        eprintln!("{error}\nusage: [--device cuda:N|emulated] [PART…], of {}", PARTS.join(", "));
        std::process::exit(2)
    });
    let sizes = match device {
        #[cfg(feature = "emulate")]
        galley_backend::cuda::CudaDevice::Emulated => gpu::Sizes::TINY,
        #[cfg(feature = "cuda")]
        galley_backend::cuda::CudaDevice::Gpu(_) => gpu::Sizes::REAL,
    };
    let mut gpu = gpu::Gpu::open(device, sizes).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(1)
    });
    if parts.contains(&"attention") {
        attention::decodes(&mut gpu);
        attention::verifications(&mut gpu);
        attention::views(&mut gpu);
    }
    if parts.contains(&"linears") {
        linears::measure(&mut gpu);
    }
}

#[cfg(not(any(feature = "cuda", feature = "emulate")))]
fn main() {
    eprintln!(
        "this build has no GPU: add --features cuda, or --features emulate for a look without one"
    );
    std::process::exit(2)
}

/// The parts that can be measured. The copy bandwidth is always measured; `copy` measures nothing
/// else.
#[cfg(any(feature = "cuda", feature = "emulate"))]
const PARTS: [&str; 3] = ["copy", "attention", "linears"];

/// The device and the requested parts: all parts if none is named.
#[cfg(any(feature = "cuda", feature = "emulate"))]
fn arguments(
    mut words: impl Iterator<Item = String>,
) -> Result<(galley_backend::cuda::CudaDevice, Vec<&'static str>), String> {
    let (mut name, mut parts) = ("cuda:0".to_owned(), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // cargo's
            "--device" => name = words.next().ok_or("--device needs a value")?,
            part => match PARTS.iter().find(|known| **known == part) {
                Some(part) => parts.push(*part),
                None => return Err(format!("{part} is unknown")),
            },
        }
    }
    let parts = if parts.is_empty() { PARTS.to_vec() } else { parts };
    match name.as_str() {
        #[cfg(feature = "emulate")]
        "emulated" => Ok((galley_backend::cuda::CudaDevice::Emulated, parts)),
        #[cfg(feature = "cuda")]
        _ if name.starts_with("cuda:") => {
            let number = name["cuda:".len()..].parse().map_err(|_| "cuda:N, N a number")?;
            Ok((galley_backend::cuda::CudaDevice::Gpu(number), parts))
        }
        _ => Err(format!("--device {name}: this build has no such device")),
    }
}
