//! Formats, titles, and what must hold for any input.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// All text of a page, for comparing words.
pub fn text_of(page: &Page) -> String {
    let text = page.blocks.iter().map(|block| match &block.kind {
        BlockKind::Prose(text) | BlockKind::Item(text) | BlockKind::Table(text) => text.as_str(),
        BlockKind::Code { code, .. } => code,
    });
    text.collect::<Vec<_>>().join("\n")
}

/// A page in one line a block: section, kind, text.
pub fn outline_of(page: &Page) -> String {
    let lines = page.blocks.iter().map(|block| {
        let (kind, text) = match &block.kind {
            BlockKind::Prose(text) => ("prose".to_owned(), text),
            BlockKind::Item(text) => ("item".to_owned(), text),
            BlockKind::Table(text) => ("table".to_owned(), text),
            BlockKind::Code { language, title, code } => {
                let title = title.as_ref().map(|title| format!(" [{title}]")).unwrap_or_default();
                (format!("code {}{title}", language.as_deref().unwrap_or("-")), code)
            }
        };
        format!("{} | {kind} | {}", block.section.join(" > "), text.replace('\n', "⏎"))
    });
    lines.fold(format!("# {}", page.title), |all, line| all + "\n" + &line)
}

#[test]
fn only_documentation_has_a_format() {
    let of = |path: &str| Format::of_path(Path::new(path));
    assert_eq!(of("a/b.MD"), Some(Format::Markdown));
    assert_eq!(of("a/b.mdx"), Some(Format::Markdown));
    assert_eq!(of("index.html"), Some(Format::Html));
    assert_eq!(of("notes.txt"), Some(Format::Plain));
    assert_eq!(of("README"), Some(Format::Plain));
    for path in ["CMakeLists.txt", "main.rs", "logo.svg", "Makefile", "", "a/.."] {
        assert_eq!(of(path), None, "{path}");
    }
}

#[test]
fn the_title_is_front_matter_then_the_top_heading_then_the_file() {
    let title = |path: &str, text: &str| parse(Format::Markdown, path, text).title;
    assert_eq!(title("a.md", "---\ntitle: Front\n---\n# Top"), "Front");
    assert_eq!(title("a.md", "Text\n\n# Top `code`\n\n# Other"), "Top code");
    assert_eq!(title("a.md", "## Chapter\n\ntext\n\n### Part"), "Chapter");
    assert_eq!(title("guide/getting_started.md", "## One\n\n## Two"), "Getting started");
    assert_eq!(title("guide/index.md", "text"), "Guide");
    assert_eq!(title("README.md", ""), "README");
    assert_eq!(title("ch01-02-hello-world.md", ""), "Hello world");
    assert_eq!(title("", ""), "Untitled");
}

#[test]
fn sections_leave_the_title_out_and_keep_bare_headings() {
    let page = parse(Format::Markdown, "a.md", "# T\nlead\n## A\n### B\ntext\n## C\n## D\nend\n# E\nlast");
    insta::assert_snapshot!(outline_of(&page), @"
    # T
     | prose | lead
    A > B | prose | text
     | prose | C
    D | prose | end
    E | prose | last
    ");
}

#[test]
fn plain_text_shows_its_headings_and_code() {
    let rst = "Title\n=====\n\nLead.\n\nPart\n----\n\n.. code-block:: python\n   :linenos:\n\n   def f():\n       pass\n\nEnd\n  of it";
    insta::assert_snapshot!(outline_of(&parse(Format::Plain, "a.rst", rst)), @"
    # Title
     | prose | Lead.
    Part | code python | def f():⏎    pass
    Part | prose | End⏎  of it
    ");
    let adoc = "= Title\n\nLead.\n\n== Part\n\n[source,ruby]\n----\nputs 1\n----\n";
    insta::assert_snapshot!(outline_of(&parse(Format::Plain, "a.adoc", adoc)), @"
    # Title
     | prose | Lead.
    Part | code ruby | puts 1
    ");
}

#[test]
fn a_nul_never_reaches_the_database() {
    let page = parse(Format::Markdown, "a.md", "---\ntitle: \"a\\0b\"\n\"k\\0\": 1\n---\nx\0y &#0;");
    assert!(!format!("{page:?}").contains("\\0"), "{page:?}");
}

/// Inputs that take a naive reader quadratic time or an unbounded stack. A reader that does ends no test run.
#[test]
fn hostile_inputs_take_linear_time_and_no_stack() {
    const SIZE: usize = 1_000_000;
    let units = [
        "<div>",
        "<b id=x>",
        "<p><i a=1><i a=2>",
        "</p>",
        "<a ",
        "<!--",
        "<table><td>",
        "<svg><p><g/>",
        "[",
        "![",
        "> ",
        "+ ",
        "*a ",
        "`` ` ",
        "{/*",
        "<A {",
        "::: a\n",
        "{{#include",
        "!!! note \"a\"\n    ",
        "# a\n",
        "|a",
        "<script>",
        "</x",
        "&amp;",
        "<body a=1>",
        "1. ",
        "<ul><li>",
        "<pre>",
        "=\n",
        ".. code::\n",
        "----\n",
        "\\",
        "a  \n",
        "<h1>",
        "```\n",
    ];
    for unit in units {
        let text = unit.repeat(SIZE / unit.len());
        for (format, path) in
            [(Format::Markdown, "a.md"), (Format::Markdown, "a.mdx"), (Format::Html, "a"), (Format::Plain, "a.adoc")]
        {
            let page = parse(format, path, &text);
            assert!(text_of(&page).len() <= 8 * SIZE, "{unit:?} as {format:?} grows");
        }
    }
    assert!(!parse(Format::Html, "a", &("<div>".repeat(SIZE) + "deep")).blocks.is_empty());
    assert!(!parse(Format::Markdown, "a", &"[".repeat(10 * SIZE)).blocks.is_empty());
}

proptest! {
    #[test]
    fn any_text_is_read_and_read_the_same_twice(text in "[ -~\n\t]{0,200}|\\PC{0,100}", bytes: Vec<u8>) {
        let bytes = String::from_utf8_lossy(&bytes).into_owned();
        for (format, path) in [(Format::Markdown, "a.md"), (Format::Markdown, "a.mdx"), (Format::Html, "a.html"), (Format::Plain, "a.adoc"), (Format::Plain, "a.rst")] {
            for text in [&text, &bytes] {
                let page = parse(format, path, text);
                prop_assert!(!page.title.is_empty());
                prop_assert_eq!(&page, &parse(format, path, text));
            }
        }
    }

    /// Pieces of markup in any order: more of it is well-formed enough to reach the readers' depths.
    #[test]
    fn any_mixture_of_markup_is_read(parts in prop::collection::vec(prop::sample::select(vec![
        "# A {#a}\n", "text ", "\n\n", "```rust,ignore\n", "# hidden\n", "- item\n", "  1. two\n", "> quote ", "| a | b |\n", "|---|---|\n",
        "<div>", "</div>", "<pre><code>", "</pre>", "`code`", "[link](url)", "![alt](u)", ":::tip T\n", ":::\n", "!!! note\n    ",
        "<Tab label=\"x\">", "</Tab>", "{{#include a}}", "---\n", "+++\n", "<!-- c -->", "{/* c */}", "import x\n", "<table><tr><td>",
        "</table>", "<h2>", "</h2>", "<ul><li>", "</ul>", "[^1]", "[^1]: note\n", "\t", "~~~\n", "<T>", "é", "===\n",
    ]), 0..40)) {
        let text = parts.concat();
        for (format, path) in [(Format::Markdown, "a.md"), (Format::Markdown, "a.mdx"), (Format::Html, "a.html"), (Format::Plain, "a.adoc"), (Format::Plain, "a.rst")] {
            let page = parse(format, path, &text);
            for block in &page.blocks {
                prop_assert!(block.section.iter().all(|heading| !heading.is_empty()));
            }
            prop_assert!(page.blocks.iter().all(|block| !matches!(&block.kind, BlockKind::Prose(text) if text.trim().is_empty())));
        }
    }
}
