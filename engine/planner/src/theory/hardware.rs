//! GPUs by name, and any hardware by numbers.

use std::fmt;

/// One processor with its own memory: a GPU, or the CPUs of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardware {
    /// The name, for people.
    pub name: String,
    /// Memory bandwidth, bytes a second.
    pub bandwidth_bytes_per_s: f64,
    /// Dense operations on 16-bit operands, FLOP a second. A multiplication with an addition is two.
    pub flops_per_s: f64,
    /// Memory in bytes; None if it is not known.
    pub memory_bytes: Option<f64>,
}

/// A row of [`GPUS`]: name, bandwidth in GB/s, dense 16-bit TFLOP/s, memory in GB of 10^9 bytes.
type Row = (&'static str, f64, f64, f64);

/// GPUs by name, in the order of error messages. Bandwidths of A100, H100, L40 and A6000 are those of the published
/// theory of MagicDec, which rounds the H100 down (its datasheet says 3350 GB/s). All other numbers are those of datasheets.
const GPUS: [Row; 19] = [
    ("A100-40", 1555.0, 312.0, 40.0),
    ("A100-80", 2039.0, 312.0, 80.0),
    ("H100-SXM", 3072.0, 989.5, 80.0),
    ("H100-PCIe", 2048.0, 756.5, 80.0),
    ("H100-NVL", 3900.0, 835.5, 94.0),
    ("H20", 4000.0, 148.0, 96.0),
    ("H200", 4800.0, 989.5, 141.0),
    ("B200", 8000.0, 2250.0, 180.0),
    ("GB200", 8000.0, 2500.0, 186.0),
    ("A10", 600.0, 125.0, 24.0),
    ("A40", 696.0, 149.7, 48.0),
    ("A6000", 768.0, 154.8, 48.0),
    ("L4", 300.0, 121.0, 24.0),
    ("L40", 864.0, 181.0, 48.0),
    ("L40S", 864.0, 362.0, 48.0),
    ("RTX-3090", 936.0, 71.0, 24.0),
    ("RTX-4090", 1008.0, 165.2, 24.0),
    ("RTX-5090", 1792.0, 209.5, 32.0),
    ("MI300X", 5300.0, 1307.4, 192.0),
];

/// Short names, each of the most common variant of a GPU.
const ALIASES: [(&str, &str); 4] =
    [("A100", "A100-80"), ("H100", "H100-SXM"), ("H200-SXM", "H200"), ("RTX-A6000", "A6000")];

/// There is no GPU of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownGpu {
    /// The name that was asked for.
    pub name: String,
}

impl fmt::Display for UnknownGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Hardware::gpu_names().collect();
        write!(f, "unknown GPU {:?}: known are {}", self.name, names.join(", "))
    }
}

impl std::error::Error for UnknownGpu {}

impl Hardware {
    /// The GPU of a name. Case, spaces and dashes do not count, nor does a leading "NVIDIA".
    ///
    /// # Errors
    ///
    /// A name that is not in the list; the message has the list.
    pub fn gpu(name: &str) -> Result<Self, UnknownGpu> {
        let wanted = canonical(name);
        let alias = ALIASES.iter().find(|(alias, _)| canonical(alias) == wanted);
        let wanted = alias.map_or(wanted, |(_, gpu)| canonical(gpu));
        let (name, bandwidth_gb_s, tflops, memory_gb) = GPUS
            .into_iter()
            .find(|(known, ..)| canonical(known) == wanted)
            .ok_or_else(|| UnknownGpu { name: name.to_owned() })?;
        let hardware = Self::by_numbers(bandwidth_gb_s, tflops, Some(memory_gb));
        Ok(Self { name: name.to_owned(), ..hardware })
    }

    /// Names of all GPUs that [`Self::gpu`] knows.
    pub fn gpu_names() -> impl Iterator<Item = &'static str> {
        GPUS.into_iter().map(|(name, ..)| name)
    }

    /// Hardware of a measured or published bandwidth (GB/s), rate of operations (TFLOP/s) and memory (GB); a giga is 10^9.
    pub fn by_numbers(bandwidth_gb_s: f64, tflops: f64, memory_gb: Option<f64>) -> Self {
        Self {
            name: "hardware by numbers".to_owned(),
            bandwidth_bytes_per_s: bandwidth_gb_s * 1e9,
            flops_per_s: tflops * 1e12,
            memory_bytes: memory_gb.map(|gb| gb * 1e9),
        }
    }
}

/// A name without case, spaces, dashes and vendor.
fn canonical(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_ascii_alphanumeric());
    let name: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    name.strip_prefix("nvidia").map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_found_as_people_write_them() {
        let name = |text| Hardware::gpu(text).expect("known").name;
        for (written, known) in [
            ("h100", "H100-SXM"),
            ("H100 SXM", "H100-SXM"),
            ("NVIDIA A100", "A100-80"),
            ("rtx4090", "RTX-4090"),
            ("L40", "L40"),
            ("l40s", "L40S"),
        ] {
            assert_eq!(name(written), known, "{written}");
        }
        let error = Hardware::gpu("H1000").expect_err("unknown").to_string();
        assert!(error.contains("\"H1000\"") && error.contains("H100-PCIe, "), "{error}");
        assert!(Hardware::gpu("").is_err() && Hardware::gpu("nvidia").is_err());
    }

    #[test]
    fn every_gpu_and_alias_has_one_name() {
        let mut names: Vec<_> = Hardware::gpu_names().map(canonical).collect();
        names.extend(ALIASES.iter().map(|(alias, _)| canonical(alias)));
        let n_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_names);
        for (alias, gpu) in ALIASES {
            assert_eq!(Hardware::gpu(alias).expect("known").name, gpu);
        }
    }
}
