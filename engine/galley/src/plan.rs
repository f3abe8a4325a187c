//! `galley plan`: which drafter, draft length and KV budget pay in theory, on hardware that need not be here.

mod json;
mod models;
mod options;
mod report;

use crate::args::PlanArgs;
use crate::console::{self, note};
use anyhow::{Context, Result, anyhow, bail};
use galley_planner::theory::{
    Deployment, DraftOption, ForwardCosts, Hardware, MemoryNeeds, Planner, WorkloadPlan,
};
use models::PlannedModel;
use options::Drafters;
use std::io::Write;

/// Runs the command.
pub(crate) fn plan(args: &PlanArgs) -> Result<()> {
    let report = Report::new(args)?;
    for context in args.context.iter().filter(|&&context| context > report.target.max_context) {
        note(format_args!(
            "note: --context {context} is beyond the {} tokens of the model's configuration",
            report.target.max_context
        ));
    }
    let mut stdout = console::stdout();
    match args.json {
        true => writeln!(stdout, "{:#}", json::of(&report))?,
        false => report::print(&report, &mut stdout)?,
    }
    Ok(())
}

/// Everything that the command prints.
struct Report<'a> {
    args: &'a PlanArgs,
    target: PlannedModel,
    draft: Option<PlannedModel>,
    hardware: Hardware,
    costs: ForwardCosts,
    needs: MemoryNeeds,
    /// Longest context of the search for critical lengths.
    longest_context_tokens: usize,
    /// One plan for each batch size and context length, by context length first.
    plans: Vec<Planned>,
}

/// A plan with its options.
struct Planned {
    plan: WorkloadPlan,
    options: Vec<DraftOption>,
}

impl<'a> Report<'a> {
    fn new(args: &'a PlanArgs) -> Result<Self> {
        let hardware = hardware(args)?;
        let target = PlannedModel::open(&args.model, args)?;
        let draft = args.draft_model.as_deref();
        let draft = draft
            .map(|model| PlannedModel::open(model, args).context("--draft-model"))
            .transpose()?;
        let deployment = |model: &PlannedModel| Deployment {
            hardware: hardware.clone(),
            tensor_parallel: args.tp,
            formats: model.formats,
        };
        let costs = |model: &PlannedModel| {
            ForwardCosts::new(&model.shape, &deployment(model)).context("--tp (GALLEY_TP)")
        };
        let of_draft = draft.as_ref().map(|draft| costs(draft).context("--draft-model"));
        let drafters = Drafters::new(args, &target, &deployment(&target), of_draft.transpose()?)?;
        let needs = |model: &PlannedModel| MemoryNeeds::new(&model.shape, &deployment(model));
        let of_target = needs(&target);
        let needs = draft.as_ref().map_or(of_target, |draft| of_target + needs(draft));
        let longest = args.context.iter().copied().fold(target.max_context, usize::max);
        let planner = Planner {
            target: costs(&target)?,
            needs,
            memory_bytes: hardware.memory_bytes,
            max_draft_length: args.max_draft_length,
            longest_context_tokens: longest,
        };
        let workloads = args
            .context
            .iter()
            .flat_map(|&context| args.batch.iter().map(move |&batch| (batch, context)));
        let plans = workloads.map(|(batch, context)| {
            let options = drafters.options(context);
            Planned { plan: planner.plan(batch, context, &options), options }
        });
        let plans = plans.collect();
        Ok(Self {
            args,
            target,
            draft,
            costs: planner.target,
            needs,
            longest_context_tokens: longest,
            plans,
            hardware,
        })
    }
}

impl Planned {
    /// The option with the largest speedup, whose acceptance is known.
    fn fastest(&self) -> Option<&DraftOption> {
        self.plan.fastest.map(|fastest| &self.options[fastest.option])
    }
}

/// The hardware of the flags.
fn hardware(args: &PlanArgs) -> Result<Hardware> {
    let memory_gb = args.memory_gb;
    let hardware = match (&args.gpu, args.bandwidth_gb_s, args.tflops) {
        (Some(name), _, _) => Hardware::gpu(name).map_err(|error| {
            anyhow!(
                "--gpu (GALLEY_GPU): {error}; --bandwidth-gb-s and --tflops describe other hardware"
            )
        })?,
        (None, Some(bandwidth), Some(tflops)) => Hardware::by_numbers(bandwidth, tflops, None),
        (None, None, None) => bail!(
            "no hardware: --gpu NAME (one of {}), or --bandwidth-gb-s and --tflops",
            Hardware::gpu_names().collect::<Vec<_>>().join(", ")
        ),
        (None, Some(_), None) => bail!("--bandwidth-gb-s needs --tflops beside it"),
        (None, None, Some(_)) => bail!("--tflops needs --bandwidth-gb-s beside it"),
    };
    let memory_bytes = memory_gb.map(|gb| gb * 1e9).or(hardware.memory_bytes);
    Ok(Hardware { memory_bytes, ..hardware })
}
