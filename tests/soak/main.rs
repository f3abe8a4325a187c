//! The program behind `cargo xtask soak`.

use clap::{Parser, ValueEnum};
use galley_tests::soak::{Control, Report, Soak, Target};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Random requests with random drafters on random engines, each compared bit for bit with the same
/// request run alone without drafts.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak")]
struct Args {
    /// Minutes to run.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Seed of all random choices; from the clock by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Run only this workload of the seed, repeatedly.
    #[arg(long)]
    workload: Option<u64>,
    /// Insert a fault that must be found: the command fails if it is not.
    #[arg(long)]
    control: Option<ControlArg>,
    /// SmolLM2's file; it takes part beside the tiny models of tests/data.
    #[arg(long, env = "GALLEY_TEST_MODEL")]
    model: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ControlArg {
    /// Attention of several rows sums in another order than attention of one row.
    Sum,
    /// One of a thousand wrong draft tokens is accepted.
    Verify,
}

/// Time between two lines about progress.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(seed_of_the_clock);
    let mut targets = Target::tiny();
    targets.extend(args.model.as_deref().map(Target::real));
    let names: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
    println!("seed {seed}, {} minutes, on {}", args.minutes, names.join(", "));
    let control = args.control.map(|control| match control {
        ControlArg::Sum => Control::Sum,
        ControlArg::Verify => Control::Verify,
    });
    let soak = Soak { seed, targets, only: args.workload, control };
    if let Some(number) = args.workload {
        let (target, workload) = soak.draw(number);
        println!("on {}, {workload}", target.name);
    }
    let end = Duration::from_secs_f64(args.minutes.max(0.0) * 60.0);
    let mut said = Instant::now();
    let mut n_said = 0;
    let report = soak.run(|report| {
        for finding in &report.findings[n_said..] {
            eprintln!("{finding}");
        }
        n_said = report.findings.len();
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("{}", line(report));
        }
        report.elapsed >= end || control.is_some() && !report.is_clean()
    });
    report.findings[n_said..].iter().for_each(|finding| eprintln!("{finding}"));
    print!("{report}");
    verdict(&report, control)
}

fn line(report: &Report) -> String {
    let Report { elapsed, n_comparisons, n_differences, n_preemptions, n_drafted, .. } = report;
    let seconds = elapsed.as_secs();
    format!(
        "{seconds:4} s: {n_comparisons} comparisons, {n_differences} differences, {n_preemptions} preemptions, {n_drafted} drafted"
    )
}

/// Succeeds if the report is clean; with a fault, if the soak has found a difference.
fn verdict(report: &Report, control: Option<Control>) -> ExitCode {
    let seed = report.seed;
    match (control, report.is_clean()) {
        (None, true) => ExitCode::SUCCESS,
        (None, false) => {
            eprintln!("to repeat one: cargo xtask soak --seed {seed} --workload NUMBER");
            ExitCode::FAILURE
        }
        (Some(_), false) if report.n_differences > 0 => {
            let (n, seconds) = (report.n_comparisons, report.elapsed.as_secs_f64());
            println!("the fault was found after {n} comparisons, in {seconds:.1} s");
            ExitCode::SUCCESS
        }
        (Some(control), _) => {
            eprintln!("error: the fault {control:?} was not found");
            ExitCode::FAILURE
        }
    }
}

fn seed_of_the_clock() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_nanos() as u64 % 1_000_000_000
}
