//! What holds for every page, and the shapes that chunks take.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::work::parse::{Format, parse, tests::text_of};

/// A stand-in for the model's tokenizer: two special tokens, one for each four letters of a word, one for each mark.
fn count(text: &str) -> usize {
    let mut tokens = 2;
    let mut letters = 0_usize;
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            letters += 1;
            continue;
        }
        tokens += letters.div_ceil(4) + usize::from(!letter.is_whitespace());
        letters = 0;
    }
    tokens + letters.div_ceil(4)
}

fn chunks_of(text: &str) -> Vec<Chunk> {
    chunk(&parse(Format::Markdown, "page.md", text), &Limits::default(), &count).0
}

fn words(text: &str) -> HashSet<String> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A sentence of `length` words with a number of its own.
fn sentence(number: usize, length: usize) -> String {
    format!("Sentence{number} {}. ", "word ".repeat(length).trim_end())
}

/// What every page must satisfy.
fn check(page: &Page, limits: Limits) {
    let (chunks, examples) = chunk(page, &limits, &count);
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.number, number);
        assert!(!chunk.content.trim().is_empty(), "an empty chunk");
        assert_eq!(chunk.embed_text, format!("{}\n\n{}", chunk.context, chunk.content));
        assert_eq!(chunk.tokens, count(&chunk.embed_text));
        assert!(chunk.tokens <= limits.max_tokens.max(MIN_TOKENS), "{} tokens:\n{}", chunk.tokens, chunk.embed_text);
    }
    // Long words may be cut, and the rules for sentences cut some scripts where this test sees a word: for those the
    // letters are compared.
    let shown: String = chunks.iter().map(|chunk| chunk.content.as_str()).collect::<Vec<_>>().join("\n");
    let known = words(&shown);
    for word in words(&text_of(page)).into_iter().filter(|word| word.is_ascii() && word.len() <= 20) {
        assert!(known.contains(&word), "{word:?} is lost of {page:?}");
    }
    let letters = |text: &str| text.chars().filter(|letter| letter.is_alphanumeric()).count();
    assert!(letters(&shown) >= letters(&text_of(page)), "text is lost of {page:?}");
    assert_eq!(page.blocks.is_empty(), chunks.is_empty());
    for example in &examples {
        assert!(example.chunk_number < chunks.len());
    }
    assert_eq!((chunks, examples), chunk(page, &limits, &count));
}

#[test]
fn a_page_without_text_has_no_chunks() {
    assert!(chunks_of("").is_empty());
    assert!(chunks_of("# Only a title").is_empty());
}

#[test]
fn small_sections_share_a_chunk_under_their_parent() {
    let chunks = chunks_of("# T\n## A\nlead\n### B\none\n### C\n- two\n- three\n");
    assert_eq!(chunks.len(), 1);
    insta::assert_snapshot!(chunks[0].embed_text, @"
    T
    A

    lead

    ### B

    one

    ### C

    - two
    - three
    ");
}

#[test]
fn substantial_top_sections_stay_apart() {
    let long = sentence(1, 120);
    let chunks = chunks_of(&format!("# T\n## A\n{long}\n## B\n{long}\n## C\nshort"));
    let sections: Vec<_> = chunks.iter().map(|chunk| chunk.section.join(">")).collect();
    assert_eq!(sections, ["A", "B", "C"]);
}

#[test]
fn a_long_section_is_spread_evenly_at_sentences() {
    let text: String = (0..40).map(|number| sentence(number, 10)).collect();
    let chunks = chunks_of(&format!("# T\n## A\n{text}"));
    let tokens: Vec<usize> = chunks.iter().map(|chunk| chunk.tokens).collect();
    assert!(tokens.iter().all(|tokens| (180..=256).contains(tokens)), "{tokens:?}");
    assert!(chunks.iter().all(|chunk| chunk.content.starts_with("Sentence") && chunk.content.ends_with('.')));
}

#[test]
fn code_is_whole_with_its_paragraph_and_listed_as_an_example() {
    let filler = sentence(1, 150);
    let text = format!("# T\n## A\n{filler}\n\nRun this:\n\n```sh\nmake\n```\n\n```sh [other]\nninja\n```\n");
    let page = parse(Format::Markdown, "page.md", &text);
    let (chunks, examples) = chunk(&page, &Limits::default(), &count);
    let holder = &chunks[examples[0].chunk_number];
    assert!(holder.content.contains("Run this:\n\n```sh\nmake\n```"), "{}", holder.content);
    assert_eq!((examples[0].context.as_str(), examples[0].language.as_deref()), ("Run this:", Some("sh")));
    assert_eq!((examples[1].context.as_str(), examples[1].code.as_str()), ("Run this:", "ninja"));
}

#[test]
fn long_code_is_cut_at_blank_lines_and_fenced_again() {
    let part = "let value = compute(input, 10);\n".repeat(6);
    let text = format!("# T\n````rust\n{}````", format!("{part}\n").repeat(8));
    let chunks = chunks_of(&text);
    assert!(chunks.len() > 2);
    for chunk in &chunks {
        assert!(chunk.content.starts_with("```rust\nlet") && chunk.content.ends_with(";\n```"), "{}", chunk.content);
        assert_eq!(chunk.content.matches("let").count() % 6, 0, "cut inside a paragraph of code");
        assert_eq!(chunk.language.as_deref(), Some("rust"));
    }
}

#[test]
fn a_long_table_repeats_its_header() {
    let rows: Vec<String> = (0..60).map(|row| format!("| key{row} | some value of {row} |")).collect();
    let chunks = chunks_of(&format!("# T\n| k | v |\n|---|---|\n{}", rows.join("\n")));
    assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.content.starts_with("| k | v |\n|---|---|\n| key")));
}

#[test]
fn a_long_context_loses_its_middle() {
    let heading = "several words of a heading that goes on for longer than it should";
    let path: Vec<String> = (2..=6).map(|level| format!("{} {heading} {level}", "#".repeat(level))).collect();
    let chunk = &chunks_of(&format!("# Title\n{}\n\ntext", path.join("\n")))[0];
    assert!(chunk.context.starts_with("Title\n") && chunk.context.ends_with('6') && chunk.context.contains('…'));
    assert!(count(&chunk.context) <= 66);
}

#[test]
fn the_hash_follows_what_is_embedded() {
    let hash = |text: &str| chunks_of(text)[0].hash;
    assert_eq!(hash("# T\ntext"), hash("---\nx: 1\n---\n# T\n\ntext\n"));
    assert_ne!(hash("# T\ntext"), hash("# U\ntext"));
}

#[test]
fn blobs_and_words_without_end_are_bounded() {
    for text in [
        "a".repeat(300_000),
        "é!".repeat(50_000),
        format!("```\n{}\n```", "x ".repeat(100_000)),
        "# ".to_owned() + &"t ".repeat(50_000),
    ] {
        let page = parse(Format::Markdown, "page.md", &text);
        check(&page, Limits::default());
        assert!(chunk(&page, &Limits::default(), &|_| 1).0.iter().all(|chunk| chunk.content.len() <= 3_000));
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_too_long(
        parts in prop::collection::vec(prop_oneof![
            "(#{1,4} [a-z]{1,8}( [a-z]{1,8}){0,3}\n\n)",
            "([A-Za-z]{1,12}[ ,.]{1,2}){1,80}\n\n",
            "(- [a-z]{1,9} [a-z0-9]{1,9}\n){1,6}\n",
            "```rs\n(([a-z]{1,8}[ (;]){1,9}\n{1,2}){1,20}```\n\n",
            "\\| a \\| b \\|\n\\|---\\|---\\|\n(\\| [a-z]{1,8} \\| [a-z]{1,8} \\|\n){1,30}\n",
            "[a-z]{60,200}\n\n",
            "(\\PC{1,20} ){1,10}\n\n",
        ], 0..12),
        max_tokens in 32_usize..300,
    ) {
        check(&parse(Format::Markdown, "some/page.md", &parts.concat()), Limits { max_tokens });
    }
}
