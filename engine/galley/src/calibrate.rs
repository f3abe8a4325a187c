//! `galley calibrate`: the times of forwards on this machine, for the planner.

use crate::args::CalibrateArgs;
use crate::console;
use crate::load::{by_flag, open_for, progress_bar};
use anyhow::Result;
use serde_json::json;
use std::io::Write;

/// Tokens of the KV cache that attention is measured over, if --kv-cache-tokens sets no other number.
const KV_TOKENS: usize = 4 * 8192;

/// Runs the command.
pub(crate) fn command(args: &CalibrateArgs) -> Result<()> {
    let files = open_for(&args.model)?;
    let mut settings = args.model.settings()?;
    settings.wanted_tokens = Some(KV_TOKENS);
    let device = settings.choose_device().map_err(by_flag)?.device;
    let bar = progress_bar("loading", "layers", 0);
    let calibrated = settings.calibrate(device, &files, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let (calibration, file) = calibrated.map_err(by_flag)?;
    let costs = &calibration.costs;
    let mut stdout = console::stdout();
    if args.json {
        let points = |points: Vec<(u32, f64)>| {
            let point = |(rows, ns)| json!({"rows": rows, "ns": ns});
            points.into_iter().map(point).collect::<Vec<_>>()
        };
        let object = json!({
            "by_rows": points(costs.by_rows().collect()),
            "per_kv_token": points(costs.per_kv_token().collect()),
            "error": calibration.error,
            "file": file,
        });
        writeln!(stdout, "{object}")?;
        return Ok(());
    }
    writeln!(stdout, "A forward, without attention to cached tokens:")?;
    writeln!(stdout, "   rows         ms    ms a row")?;
    for (rows, ns) in costs.by_rows() {
        writeln!(stdout, "{rows:>7} {:>10.2} {:>11.3}", ns / 1e6, ns / 1e6 / f64::from(rows))?;
    }
    writeln!(stdout, "Attention of a sequence to 1,000 cached tokens:")?;
    writeln!(stdout, "   rows         ms    of one row")?;
    let one = costs.attention_ns(1, 1).max(f64::MIN_POSITIVE);
    for (rows, ns) in costs.per_kv_token() {
        writeln!(stdout, "{rows:>7} {:>10.3} {:>12.2}x", ns / 1e3, ns / one)?;
    }
    writeln!(
        stdout,
        "Forwards between these sizes differ from the table by {:.1} %.",
        calibration.error * 100.0
    )?;
    match file {
        Some(file) => writeln!(stdout, "Kept in {}.", file.display())?,
        None => writeln!(stdout, "Not kept: no folder for the cache can be written.")?,
    }
    Ok(())
}
