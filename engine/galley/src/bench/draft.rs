//! Drafting measured against plain decoding of the same prompts: the speedup, and the time of each part of a round.

use super::shown;
use super::turns::{Turns, ratio};
use super::window::Window;
use crate::args::BenchArgs;
use crate::load::Loaded;
use anyhow::{Result, bail};
use galley_engine::{AUTO, DraftConfig, DraftRequest, DrafterChoice, Verify};
use galley_planner::expected_tokens;
use serde::Serialize;

/// One drafter setting on one row of the benchmark. Times are means over the steps of a window, in ms.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DraftingResult {
    #[serde(skip)]
    pub(super) drafter: String,
    draft_length: u32,
    /// None: the drafter's own budget.
    kv_budget: Option<u32>,
    verify: String,
    /// None: nothing was drafted.
    accept_rate: Option<f64>,
    /// Mean tokens kept per verification. None: nothing was verified.
    accept_len: Option<f64>,
    accepted_per_pos: Vec<u64>,
    /// All draft steps of a round, including the selection of KV views.
    t_draft_ms: f64,
    /// The part of `t_draft_ms` that selects KV views.
    t_select_ms: f64,
    /// The forward and the sampling of the verification.
    t_verify_ms: f64,
    /// A step of plain decoding, in the window measured beside this one.
    t_target_ms: f64,
    /// All other time of a round.
    overhead_ms: f64,
    /// Tokens per second at a full batch, divided by the tokens per second of plain decoding.
    speedup: f64,
    /// Share of the steps of a sequence in which it had a draft to verify.
    drafted_fraction: f64,
    /// Probability that a draft token is accepted if all draft tokens before it are: accepted over compared
    /// draft tokens. None: no draft token was compared.
    alpha: Option<f64>,
    /// The speedup that the figures above predict (arXiv 2211.17192):
    /// `t_target · (1 + drafted_fraction · (Ω − 1)) / (t_draft + t_verify + overhead)`
    /// with `Ω(γ, α) = (1 − α^(γ+1)) / (1 − α)` tokens per round.
    predicted_speedup: f64,
    drafted_decode_tok_s: f64,
    /// Prompt tokens that were computed again: the last, partly filled block of each prompt, and more if the
    /// KV cache is too small.
    pub(super) reread_tokens: u64,
}

/// The drafting of one row of results.
#[derive(Clone, Debug)]
pub(super) struct DraftingSetting {
    /// The drafter as the flag has it, with options.
    pub(super) flag: String,
    /// The drafter's name in the engine, or `auto`.
    pub(super) name: String,
    pub(super) draft_length: u32,
    pub(super) kv_budget: Option<u32>,
}

impl DraftingSetting {
    /// Whether the engine chooses.
    pub(super) fn is_auto(&self) -> bool {
        self.name == AUTO
    }

    /// Every drafter of `args` with every draft length and budget. `config` has the same drafters in the same order.
    pub(super) fn all(args: &BenchArgs, config: &DraftConfig) -> Result<Vec<DraftingSetting>> {
        let names = config.drafters.iter().map(|setup| setup.library.manifest().name.clone());
        let drafters: Vec<_> = args.draft.wanted().map(|(_, flag)| flag).zip(names).collect();
        for (i, (flag, name)) in drafters.iter().enumerate() {
            if let Some((other, _)) = drafters[..i].iter().find(|(_, known)| known == name) {
                bail!("{other:?} and {flag:?} are both {name}: measure them one after the other");
            }
        }
        let budgets: Vec<Option<u32>> = match args.kv_budget.is_empty() {
            true => vec![None],
            false => args.kv_budget.iter().copied().map(Some).collect(),
        };
        let mut all = Vec::new();
        if args.draft.is_auto() {
            let (flag, name, kv_budget) = (AUTO.to_owned(), AUTO.to_owned(), None);
            let draft_length = config.max_draft_length;
            all.push(DraftingSetting { flag, name, draft_length, kv_budget });
        }
        for (flag, name) in drafters {
            for &draft_length in &args.draft_length {
                for &kv_budget in &budgets {
                    let (flag, name) = (flag.to_owned(), name.clone());
                    all.push(DraftingSetting { flag, name, draft_length, kv_budget });
                }
            }
        }
        Ok(all)
    }
}

impl std::fmt::Display for DraftingSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} tokens a round", self.flag, self.draft_length)?;
        self.kv_budget.map_or(Ok(()), |budget| write!(f, ", budget {budget}"))
    }
}

/// Measures one setting, alternating with plain decoding, over prompts that are in the prefix cache under `salt`. An
/// error if the tokens of both differ.
pub(super) fn measure(
    args: &BenchArgs,
    loaded: &Loaded,
    turns: &mut Turns,
    prompts: &[Vec<u32>],
    salt: u64,
    setting: &DraftingSetting,
) -> Result<DraftingResult> {
    let plain = DraftRequest::off();
    let drafted = args
        .draft
        .request()
        .drafter(match setting.is_auto() {
            true => DrafterChoice::Auto,
            false => DrafterChoice::Named(setting.name.clone()),
        })
        .draft_length(setting.draft_length)
        .kv_budget(setting.kv_budget);
    // Rejection samples from the same distribution, but it may sample other tokens.
    let may_differ = args.draft.verify == Verify::Rejection && args.temperature > 0.0;
    let mut runs = Vec::new();
    for _ in 0..args.repeats.max(1) {
        let target = Window::run(args, loaded, turns, prompts, salt, &plain)?;
        let ours = Window::run(args, loaded, turns, prompts, salt, &drafted)?;
        if !may_differ && !ours.agrees_with(&target) {
            bail!("a drafted token differs from plain decoding's: this is a bug in Galley");
        }
        runs.push(DraftingResult::of(args, setting, &target, &ours));
    }
    runs.sort_by(|a, b| a.speedup.total_cmp(&b.speedup));
    Ok(runs.swap_remove(runs.len() / 2))
}

impl DraftingResult {
    fn of(args: &BenchArgs, setting: &DraftingSetting, target: &Window, ours: &Window) -> Self {
        let n_seqs = ours.tokens.len();
        let (ours, target, reread_tokens) = (&ours.span, &target.span, ours.reread_tokens);
        let (rounds, drafted) = (ours.count(|s| s.drafts.rounds), ours.count(|s| s.drafts.drafted));
        let accepted = ours.count(|s| s.drafts.accepted);
        let accepted_per_pos = ours.accepted_per_position();
        let draft_length = setting.draft_length as usize;
        let n_whole = draft_length.checked_sub(1).and_then(|last| accepted_per_pos.get(last));
        let n_rejected = rounds - n_whole.copied().unwrap_or(0).min(rounds);
        let alpha = ratio(accepted, accepted + n_rejected);
        // If no draft token was compared, none is assumed to be accepted.
        let omega = expected_tokens(setting.draft_length, alpha.unwrap_or(0.0));
        let drafted_fraction = rounds as f64 / (ours.n_steps().get() as f64 * n_seqs as f64);
        let a_turn = 1.0 + drafted_fraction * (omega - 1.0);
        DraftingResult {
            drafter: setting.flag.clone(),
            draft_length: setting.draft_length,
            kv_budget: setting.kv_budget,
            verify: args.draft.verify.to_string(),
            accept_rate: ratio(accepted, drafted),
            accept_len: ratio(accepted, rounds).map(|accepted| 1.0 + accepted),
            accepted_per_pos,
            t_draft_ms: ours.ms(|s| s.drafting),
            t_select_ms: ours.ms(|s| s.draft_times.selecting),
            t_verify_ms: ours.ms(|s| s.forward + s.sampling),
            t_target_ms: target.step_ms(),
            overhead_ms: ours.ms(|s| s.bookkeeping),
            speedup: ours.speed() / target.speed(),
            drafted_fraction,
            alpha,
            predicted_speedup: target.step_ms() * a_turn / ours.step_ms(),
            drafted_decode_tok_s: ours.speed(),
            reread_tokens,
        }
    }
}

impl std::fmt::Display for DraftingResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let budget = self.kv_budget.map_or("own".to_owned(), |budget| budget.to_string());
        write!(
            f,
            "    {}, {} tokens a round, budget {budget}, by {}: {:.2}x (its parts allow {:.2}x), {} % accepted, {} a \
             round; ms: target {:.1}, draft {:.1} (select {:.1}), verify {:.1}, other {:.2}",
            self.drafter,
            self.draft_length,
            self.verify,
            self.speedup,
            self.predicted_speedup,
            shown(self.accept_rate.map(|rate| rate * 100.0), 0),
            shown(self.accept_len, 2),
            self.t_target_ms,
            self.t_draft_ms,
            self.t_select_ms,
            self.t_verify_ms,
            self.overhead_ms
        )
    }
}
