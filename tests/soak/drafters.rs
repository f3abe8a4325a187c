//! Random drafters, their options and KV budgets.

use super::random::Random;
use super::target::Target;

/// The drafters that take part: all drafters that Galley ships.
pub const DRAFTERS: [&str; 6] =
    ["ngram", "streaming-llm", "snap-kv", "self-spec", "layer-skip", "small-model"];

/// A KV budget, or none.
pub fn random_budget(random: &mut Random) -> Option<u32> {
    let budget = random.of(&[1, 5, 16, 33, 64, 100, 250, 4096]);
    random.one_in(3).then_some(budget)
}

/// Some of the drafters, in random order and with random options. The first is for requests that
/// name no drafter.
pub fn drafters(
    random: &mut Random,
    target: &Target,
    all: &[Target],
) -> Vec<(&'static str, String)> {
    let mut left = DRAFTERS.to_vec();
    let n = random.of(&[0, 1, 2, 3, 6, 6]);
    let mut chosen = Vec::new();
    while chosen.len() < n {
        let name = left.remove(random.below(left.len()));
        chosen.push((name, options(random, name, target, all)));
    }
    chosen
}

/// Options of a drafter, in the form `key=value,key=value`.
fn options(random: &mut Random, drafter: &str, target: &Target, all: &[Target]) -> String {
    let n_layers = target.checkpoint.config().n_layers;
    let n_sinks = random.of(&[0, 4, 16, 20]);
    let budget = n_sinks + 40 + random.of(&[0, 8, 40, 200, 4096]);
    match drafter {
        "ngram" => {
            let min = random.within(1..=3);
            let max = min + random.of(&[0, 1, 3, 30, 100]);
            let (factor, probability) = (random.of(&[0.5, 1.0, 4.0]), random.of(&[0.0, 0.3, 1.0]));
            let memory = random.of(&["on", "on", "off"]);
            format!(
                "min={min},max={max},factor={factor},min-probability={probability},memory={memory}"
            )
        }
        "streaming-llm" => {
            let layer = random.below(n_layers).to_string();
            let skip = random.of(&[String::new(), layer]);
            format!("sinks={n_sinks},budget={budget},skip={skip}")
        }
        "snap-kv" => {
            let (queries, pool) = (random.of(&[1, 8, 32]), random.of(&[1, 3, 5, 7]));
            let (pooling, refresh) = (random.of(&["average", "max"]), random.of(&[0, 1, 16, 64]));
            format!(
                "sinks={n_sinks},budget={budget},queries={queries},pool={pool},pooling={pooling},refresh={refresh}"
            )
        }
        "self-spec" => {
            let (recent, refresh) = (random.of(&[1, 16, 30]), random.of(&[1, 2, 5]));
            format!("sinks={n_sinks},budget={budget},recent={recent},refresh={refresh}")
        }
        "layer-skip" => {
            let window = random.of(&[format!("sinks={n_sinks},budget={budget}"), String::new()]);
            let mode = match random.below(4) {
                0 => "mode=static".to_owned(),
                1 => format!("attention={},mlp={}", random.below(n_layers), random.below(n_layers)),
                2 => format!("mode=exit,exit={}", random.within(1..=n_layers)),
                _ => {
                    let (every, window) = (random.of(&[2, 3]), random.of(&[4, 8, 32]));
                    format!("mode=search,every={every},window={window},seed={}", random.below(9))
                }
            };
            format!("{mode},{window}")
        }
        "small-model" => {
            let fits = |other: &&Target| target.can_be_drafted_by(other);
            let draft_models: Vec<&Target> = all.iter().filter(fits).collect();
            let model = random.of(&draft_models).path.display().to_string();
            let window = random.of(&[format!("sinks={n_sinks},budget={budget}"), String::new()]);
            format!("model={model},{window}")
        }
        _ => panic!("{drafter} has no options here"),
    }
}
