//! Products of quantised weights compared with their lower bound, and with bf16:
//! `cargo bench -p galley-benches --bench quantised [-- FORMAT …]`.
//!
//! Shapes are those of a model of 1.5 billion weights, a few layers of it. Each line gives the time, the rate of
//! the limiting resource, and the speed beside bf16 weights, both measured in turns. `GALLEY_CPU` names the
//! instruction set.

use galley_backend::cpu::{CpuBackend, CpuConfig, InstructionSet, read_bandwidth};
use galley_backend::{BlockFormat, DecoderOps, DeviceMemory, Formats, RowCodes, WeightRows};
use galley_benches::{median, seconds};

type Matrix = <CpuBackend as DeviceMemory>::Matrix;
type Tensor = <CpuBackend as DeviceMemory>::Tensor;

const HIDDEN: usize = 1536;
const QKV: usize = 2048;
const INTERMEDIATE: usize = 8960;
const LAYERS: usize = 4;
const ROWS: [usize; 9] = [1, 2, 3, 4, 8, 12, 24, 32, 512];
const PAIRS: usize = 9;

fn main() {
    let isa =
        std::env::var("GALLEY_CPU").ok().map(|name| name.parse().expect("an instruction set"));
    let isa: InstructionSet = isa.unwrap_or_else(InstructionSet::best);
    let names: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let config = CpuConfig::default().instruction_set(isa).formats(Formats::NATIVE);
    let mut backend = CpuBackend::new(config).expect("a CPU backend");
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    backend.begin_model(0, false);
    let mut floats = Layers::new(&mut backend, None);
    backend.begin_model(0, true);
    println!("| {} | rows | ms | GB/s | of the bandwidth | GOP/s | beside bf16 |", isa.name());
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for format in BlockFormat::ALL {
        if !names.is_empty() && !names.contains(&format.to_string()) {
            continue;
        }
        let mut layers = Layers::new(&mut backend, Some(format));
        for n_rows in ROWS {
            let bandwidth = read_bandwidth(isa, n_threads);
            let (mut times, mut ratios) = (Vec::new(), Vec::new());
            for _ in 0..PAIRS {
                let time = seconds(|| layers.step(&mut backend, n_rows));
                let of_floats = seconds(|| floats.step(&mut backend, n_rows));
                times.push(time);
                ratios.push(of_floats / time);
            }
            let time = median(times);
            let rate = layers.bytes as f64 / time;
            println!(
                "| {format} | {n_rows} | {:.2} | {:.1} | {:.0} % of {:.0} | {:.0} | {:.2}x |",
                time * 1e3,
                rate / 1e9,
                100.0 * rate / bandwidth,
                bandwidth / 1e9,
                2.0 * (layers.weights * n_rows) as f64 / time / 1e9,
                median(ratios),
            );
        }
    }
}

/// Weights of one format, or floats, that follow from row and column alone.
struct Weights {
    format: Option<BlockFormat>,
}

impl WeightRows for Weights {
    fn read_row(&self, row: usize, out: &mut [f32]) {
        for (i, x) in out.iter_mut().enumerate() {
            *x = ((row * 31 + i * 17) % 64) as f32 / 64.0 - 0.5;
        }
    }

    fn block_format(&self, _: usize) -> Option<BlockFormat> {
        self.format
    }

    fn read_codes(&self, row: usize, out: &mut RowCodes) {
        let format = self.format.expect("the weights have a format");
        for (i, code) in out.codes.iter_mut().enumerate() {
            *code = ((row * 31 + i * 17) % (1 << format.bits())) as u8;
        }
        out.scales.fill(0x1c00);
        out.mins.fill(0x1c00);
        out.sub_scales.fill(21);
        out.sub_mins.fill(13);
    }
}

/// All linear layers of some decoder layers, and buffers for their rows.
struct Layers {
    layers: Vec<[Matrix; 4]>,
    bytes: usize,
    weights: usize,
    x: Tensor,
    qkv: Tensor,
    residual: Tensor,
    gated: Tensor,
}

impl Layers {
    fn new(b: &mut CpuBackend, format: Option<BlockFormat>) -> Self {
        let source = Weights { format };
        let layer = |_| {
            let load = |b: &mut CpuBackend, rows, cols| b.load_matrix(rows, cols, &source);
            let gated = b.load_gated(INTERMEDIATE, HIDDEN, &source, &source);
            let all = [
                load(b, QKV, HIDDEN),
                load(b, HIDDEN, HIDDEN),
                gated,
                load(b, HIDDEN, INTERMEDIATE),
            ];
            all.map(|matrix| matrix.expect("a matrix"))
        };
        let layers: Vec<[Matrix; 4]> = (0..LAYERS).map(layer).collect();
        let most = ROWS[ROWS.len() - 1];
        Self {
            bytes: layers.iter().flatten().map(|matrix| b.matrix_bytes(matrix)).sum(),
            weights: LAYERS * (QKV + HIDDEN + 3 * INTERMEDIATE) * HIDDEN,
            layers,
            x: b.operand_rows(most, HIDDEN).expect("rows"),
            qkv: b.f32_rows(most, QKV).expect("rows"),
            residual: b.f32_rows(most, HIDDEN).expect("rows"),
            gated: b.operand_rows(most, INTERMEDIATE).expect("rows"),
        }
    }

    fn step(&mut self, b: &mut CpuBackend, n_rows: usize) {
        for [qkv, out, gate_up, down] in &self.layers {
            b.linear(&self.x, n_rows, qkv, None, &mut self.qkv).expect("shapes");
            b.linear_add(&self.x, n_rows, out, &mut self.residual).expect("shapes");
            b.linear_silu_mul(&self.x, n_rows, gate_up, &mut self.gated).expect("shapes");
            b.linear_add(&self.gated, n_rows, down, &mut self.residual).expect("shapes");
        }
    }
}
