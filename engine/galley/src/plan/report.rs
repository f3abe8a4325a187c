//! A plan as text: one workload in detail, or a table of several.

use super::options::{PUBLISHED, given};
use super::{Planned, Report};
use galley_planner::expected_tokens;
use galley_planner::theory::{
    Bottleneck, BreakEven, DraftOption, MEMORY_SHARE, Outlook, StepTime, WorkloadPlan,
};
use std::io::{self, Write};

/// Prints the report.
pub(super) fn print(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    print_subject(report, out)?;
    match &report.plans[..] {
        [planned] => print_workload(report, planned, out)?,
        several => print_table(report, several, out)?,
    }
    let is_published = |option: &DraftOption| {
        option.acceptance.is_some() && given(report.args, &option.drafter).is_none()
    };
    if report.plans.iter().flat_map(|planned| &planned.options).any(is_published) {
        writeln!(out, "\n* {PUBLISHED}.")?;
    }
    writeln!(out, "\n{CAVEAT}")
}

/// The limits of the numbers.
const CAVEAT: &str = "This is theory: bytes and operations, without launches, reductions between GPUs and scheduling. A \
    measured speedup is lower, and more so for short steps.";

/// Prints models and hardware.
fn print_subject(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let models = [("target", Some(&report.target)), ("draft model", report.draft.as_ref())];
    for (label, model) in models {
        let Some(model) = model else { continue };
        let kv_bytes = model.shape.kv_values_per_token() * model.formats.bytes_per_kv_value;
        writeln!(
            out,
            "{label:<16}{}, {:.1} M parameters, {} weights ({:.2} bytes), {kv_bytes:.0} bytes of KV a token",
            model.family,
            model.shape.weights() / 1e6,
            model.weight_format,
            model.formats.bytes_per_weight,
        )?;
    }
    let hardware = &report.hardware;
    let memory = hardware.memory_bytes.map(|bytes| format!(", {} GB", bytes / 1e9));
    writeln!(
        out,
        "hardware        {} x {} ({} GB/s, {} TFLOP/s{} each)",
        report.args.tp,
        hardware.name,
        hardware.bandwidth_bytes_per_s / 1e9,
        hardware.flops_per_s / 1e12,
        memory.unwrap_or_default()
    )
}

fn print_workload(report: &Report<'_>, planned: &Planned, out: &mut dyn Write) -> io::Result<()> {
    let plan = &planned.plan;
    let workload = &plan.workload;
    let batch = workload.batch;
    let sequences = if batch == 1 { "sequence" } else { "sequences" };
    writeln!(out, "workload        {batch} {sequences} of {} tokens\n", workload.context_tokens)?;
    writeln!(out, "recommended     {}", recommended(planned))?;
    let plain_s = plan.plain.total_s();
    writeln!(
        out,
        "plain decoding  {:.3} ms a step, {:.0} tokens/s: {}",
        plain_s * 1e3,
        batch as f64 / plain_s,
        shares(&plan.plain)
    )?;
    writeln!(
        out,
        "verification    {:.3} ms for {} rows a sequence, {:.2} of a step: {}",
        plan.verification.total_s() * 1e3,
        plan.draft_length + 1,
        plan.verification.total_s() / plain_s,
        shares(&plan.verification)
    )?;
    if let Some(line) = round(planned) {
        writeln!(out, "round           {line}")?;
    }
    writeln!(out, "break-even      {}", break_even(report, planned))?;
    writeln!(out, "critical length {}", critical_length(report, plan))?;
    writeln!(out, "memory          {}", memory(report, plan))?;
    print_drafters(report, planned, out)
}

/// The strategy to take, with its flags.
fn recommended(planned: &Planned) -> String {
    let strategy = planned.plan.fastest;
    match strategy.map(|strategy| (strategy, &planned.options[strategy.option])) {
        Some((strategy, option)) if strategy.speedup > 1.0 => format!(
            "{}, draft length {}: {:.2}x of plain decoding",
            described(option),
            strategy.draft_length,
            strategy.speedup
        ),
        Some((strategy, option)) => format!(
            "plain decoding: the best draft, {} of length {}, has {:.2}x",
            described(option),
            strategy.draft_length,
            strategy.speedup
        ),
        None => "plain decoding, as no acceptance is known: give --acceptance".to_owned(),
    }
}

/// A drafter with its KV budget.
fn described(option: &DraftOption) -> String {
    match option.kv_budget_tokens() {
        Some(budget) => format!("{}, KV budget {budget}", option.drafter),
        None => option.drafter.clone(),
    }
}

/// The parts of a step in percent, and the largest in words.
fn shares(time: &StepTime) -> String {
    let percent = |part| time.share(part) * 100.0;
    let bound_by = match time.bottleneck() {
        Bottleneck::Weights => "reading weights",
        Bottleneck::Kv => "reading the KV cache",
        Bottleneck::Compute => "compute",
    };
    format!(
        "weights {:.0} %, KV {:.0} %, compute {:.0} %, bound by {bound_by}",
        percent(Bottleneck::Weights),
        percent(Bottleneck::Kv),
        percent(Bottleneck::Compute)
    )
}

/// The times and the yield of a round of the fastest option.
fn round(planned: &Planned) -> Option<String> {
    let option = planned.fastest()?;
    let (plan, workload) = (&planned.plan, &planned.plan.workload);
    let selection_s = workload.selection_s(&option.method);
    let selection = match selection_s > 0.0 {
        true => format!(" + select {:.3}", selection_s * 1e3),
        false => String::new(),
    };
    let round_s = workload.round_s(&option.method, plan.draft_length);
    let tokens = expected_tokens(plan.draft_length, option.acceptance?);
    Some(format!(
        "{}: draft {} x {:.3}{selection} + verify {:.3} = {:.3} ms for {tokens:.2} tokens a sequence, {:.0} tokens/s",
        option.drafter,
        plan.draft_length,
        workload.draft_step_s(&option.method) * 1e3,
        plan.verification.total_s() * 1e3,
        round_s * 1e3,
        workload.batch as f64 * tokens / round_s
    ))
}

/// The break-even of the fastest option, beside its acceptance.
fn break_even(report: &Report<'_>, planned: &Planned) -> String {
    let Some((option, fastest)) = planned.fastest().zip(planned.plan.fastest) else {
        return "see the table: drafting pays above these acceptances".to_owned();
    };
    let outlook = &planned.plan.outlooks[fastest.option];
    match outlook.break_even {
        Some(break_even) => {
            let needed = needs(Some(break_even));
            format!("{} needs {needed}; {} is assumed", option.drafter, acceptance(report, option))
        }
        None => format!(
            "{} pays at no acceptance: a draft token takes {:.2} of a step",
            option.drafter,
            outlook.draft_step_s / planned.plan.plain.total_s()
        ),
    }
}

/// The acceptance that an option needs, in words.
fn needs(break_even: Option<BreakEven>) -> String {
    match break_even {
        Some(BreakEven { acceptance, draft_length }) => {
            format!("α > {acceptance:.2} at γ {draft_length}")
        }
        None => "no α pays".to_owned(),
    }
}

/// The acceptance of an option; a star marks a published one.
fn acceptance(report: &Report<'_>, option: &DraftOption) -> String {
    let star = if given(report.args, &option.drafter).is_none() { "*" } else { "" };
    option.acceptance.map_or("-".to_owned(), |rate| format!("{rate:.2}{star}"))
}

fn critical_length(report: &Report<'_>, plan: &WorkloadPlan) -> String {
    let batch = plan.workload.batch;
    match plan.critical_length_tokens {
        None => format!(
            "none up to {} tokens at batch {batch}: plain decoding is as fast at every length",
            report.longest_context_tokens
        ),
        Some(1) => format!("drafting is faster at every length, at batch {batch}"),
        Some(tokens) => format!(
            "{tokens} tokens at batch {batch}: in a shorter context, plain decoding is as fast"
        ),
    }
}

/// Weights and KV on one GPU, and whether they fit.
fn memory(report: &Report<'_>, plan: &WorkloadPlan) -> String {
    let (batch, context) = (plan.workload.batch, plan.workload.context_tokens);
    let gb = |bytes: f64| bytes / 1e9;
    let needs = &report.needs;
    let needed = format!(
        "{:.2} GB of weights and {:.2} GB of KV on each GPU",
        gb(needs.weight_bytes),
        gb(needs.kv_bytes(batch, context))
    );
    let (Some(memory_bytes), Some(most)) = (report.hardware.memory_bytes, plan.max_sequences)
    else {
        return format!("{needed}; --memory-gb tells whether they fit");
    };
    let verdict = if batch <= most { "fits" } else { "does not fit" };
    format!(
        "{verdict}: {needed}, of {:.1} GB ({:.0} % of {:.0} GB); at most {most} sequences of this length",
        gb(memory_bytes) * MEMORY_SHARE,
        MEMORY_SHARE * 100.0,
        gb(memory_bytes)
    )
}

/// Every option: its times in steps of plain decoding, the acceptance that it needs, and the speedup to expect.
fn print_drafters(report: &Report<'_>, planned: &Planned, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<14} {:>6}  {:>10}  {:>11}  {:<16}  {:>6}  speedup",
        "drafter", "K", "draft/step", "select/step", "break-even", "α"
    )?;
    for (option, outlook) in planned.options.iter().zip(&planned.plan.outlooks) {
        let budget = option.kv_budget_tokens().map_or("-".to_owned(), |k| k.to_string());
        let plain_s = planned.plan.plain.total_s();
        writeln!(
            out,
            "{:<14} {budget:>6}  {:>10.3}  {:>11.3}  {:<16}  {:>6}  {}",
            option.drafter,
            outlook.draft_step_s / plain_s,
            outlook.selection_s / plain_s,
            needs(outlook.break_even),
            acceptance(report, option),
            expected(outlook)
        )?;
    }
    Ok(())
}

fn expected(outlook: &Outlook) -> String {
    let expected = outlook.expected;
    expected.map_or("-".to_owned(), |(length, speedup)| format!("{speedup:.2}x at γ {length}"))
}

/// One line for each workload.
fn print_table(report: &Report<'_>, plans: &[Planned], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{:>7} {:>6}  {:>10} {:>7} {:>4} {:>7}  {:<34} {:>7}  {:<16} {:>8}  memory",
        "context",
        "batch",
        "plain ms",
        "weights",
        "KV",
        "compute",
        "recommended",
        "speedup",
        "break-even",
        "critical"
    )?;
    for planned in plans {
        let plan = &planned.plan;
        let percent = |part| format!("{:.0}%", plan.plain.share(part) * 100.0);
        let recommended = plan.recommended();
        let strategy = recommended.map_or("plain decoding".to_owned(), |strategy| {
            let option = &planned.options[strategy.option];
            let budget = option.kv_budget_tokens().map(|budget| format!(" K {budget}"));
            let budget = budget.unwrap_or_default();
            format!("{}{budget} γ {}", option.drafter, strategy.draft_length)
        });
        let break_even = plan.fastest.map(|fastest| plan.outlooks[fastest.option].break_even);
        let critical = plan.critical_length_tokens;
        writeln!(
            out,
            "{:>7} {:>6}  {:>10.3} {:>7} {:>4} {:>7}  {strategy:<34} {:>6.2}x  {:<16} {:>8}  {}",
            plan.workload.context_tokens,
            plan.workload.batch,
            plan.plain.total_s() * 1e3,
            percent(Bottleneck::Weights),
            percent(Bottleneck::Kv),
            percent(Bottleneck::Compute),
            recommended.map_or(1.0, |strategy| strategy.speedup),
            break_even.map_or("-".to_owned(), needs),
            critical.map_or("none".to_owned(), |tokens| tokens.to_string()),
            memory_in_short(report, plan)
        )?;
    }
    writeln!(
        out,
        "\nbreak-even: of the best drafter. critical: the context from which drafting pays. One workload alone is \
         printed in detail."
    )
}

fn memory_in_short(report: &Report<'_>, plan: &WorkloadPlan) -> String {
    let (batch, context) = (plan.workload.batch, plan.workload.context_tokens);
    let needs = &report.needs;
    let gb = (needs.weight_bytes + needs.kv_bytes(batch, context)) / 1e9;
    match plan.fits() {
        Some(true) => format!("{gb:.1} GB fit"),
        Some(false) => format!("{gb:.1} GB do not fit"),
        None => format!("{gb:.1} GB"),
    }
}
