//! What a reader sees of Markdown and its dialects.

use crate::work::parse::{Format, parse, tests::outline_of};

fn markdown(text: &str) -> String {
    outline_of(&parse(Format::Markdown, "page.md", text))
}

fn mdx(text: &str) -> String {
    outline_of(&parse(Format::Markdown, "page.mdx", text))
}

#[test]
fn links_images_and_emphasis_become_text() {
    insta::assert_snapshot!(markdown("# T {#id}\nA [link `x`](u) and\n**bold** ![alt](i) &lt;b&gt; ~~no~~[^1] <kbd>Ctrl</kbd>\n<br>next Vec<T> <https://a.b>\n\n[^1]: Note."), @"
    # T
     | prose | A link `x` and bold alt <b> ~~no~~[^1] Ctrl⏎next Vec<T> https://a.b
     | prose | [^1]: Note.
    ");
}

#[test]
fn lists_keep_markers_and_depth() {
    insta::assert_snapshot!(markdown("- a\n  more\n  - b `c`\n\n  para\n- [x] done\n\n3. x\n4. y\n   ```sh\n   ls\n   ```"), @"
    # Page
     | item | - a more
     | item |   - b `c`
     | item |   para
     | item | - [x] done
     | item | 3. x
     | item | 4. y
     | code sh | ls
    ");
}

#[test]
fn quotations_end_their_headings_and_alerts_say_their_kind() {
    insta::assert_snapshot!(markdown("## A\n\n> #### Inside\n> quoted\n\nafter\n\n> [!WARNING]\n> hot\n\n## B\n\nend"), @"
    # Page
    A > Inside | prose | quoted
    A | prose | after
    A | prose | Warning: hot
    B | prose | end
    ");
}

#[test]
fn tables_are_rebuilt_row_by_row() {
    insta::assert_snapshot!(markdown("| a    | [b](u) |\n|:-----|---|\n| `1\\|2` | x <br> y |\n| z |"), @"
    # Page
     | table | | a | b |⏎|---|---|⏎| `1\\|2` | x y |⏎| z |  |
    ");
}

#[test]
fn code_keeps_language_and_title_and_loses_what_is_hidden() {
    let text = "```rust,ignore\n# use a;\n#[derive(Debug)]\n## raw\nfn f() {}\n#\n```\n\n```ts twoslash [vite.config.ts]\nhidden\n// ---cut---\nconst a = 1 // [!code ++]\n// @noErrors\n```\n\n```{.python title=\"a.py\"}\n# kept\n```\n\n    indented\n\n```sh\n```";
    insta::assert_snapshot!(markdown(text), @"
    # Page
     | code rust | #[derive(Debug)]⏎# raw⏎fn f() {}
     | code ts [vite.config.ts] | const a = 1
     | code python [a.py] | # kept
     | code - | indented
    ");
}

#[test]
fn generator_directives_are_dropped() {
    let text = "[[toc]]\n\n<script setup>\nimport x\n\nmore\n</script>\n\n::: tip Read this\nInside.\n:::\n\n:::warning\nHot.\n:::\n\n<<< @/a.js\n\n{: .cls }\n\n!!! note \"Mind\"\n    Indented text.\n\n        code\n\nAfter {{#include a.md}}.\n\n```md\n:::tip\n{{#include b.md}}\n```\n\n<!-- comment -->";
    insta::assert_snapshot!(markdown(text), @"
    # Page
     | prose | Read this:
     | prose | Inside.
     | prose | Warning:
     | prose | Hot.
     | prose | Mind:
     | prose | Indented text.
     | code - | code
     | prose | After .
     | code md | :::tip
    ");
}

#[test]
fn a_listing_keeps_caption_and_file_name() {
    let text = "<Listing number=\"1-1\" file-name=\"src/main.rs\" caption=\"Says `hi`\">\n\n```rust\nfn main() {}\n```\n\n</Listing>\n\n<Listing caption=\"Only\" file-name=\"b.rs\">\n\n```rust\n{{#rustdoc_include a.rs:here}}\n```\n\n</Listing>\n\n<span class=\"filename\">Filename: a.rs</span>\n\n```sh\nls\n```";
    insta::assert_snapshot!(markdown(text), @"
    # Page
     | prose | Listing 1-1: Says `hi`
     | code rust [src/main.rs] | fn main() {}
     | prose | Only
     | prose | Filename: a.rs
     | code sh | ls
    ");
}

#[test]
fn html_blocks_are_read_as_html() {
    let text = "<h1 align=\"center\">Name</h1>\n\n<p align=\"center\"><img alt=\"Logo\" src=\"x\"> A <b>tool</b></p>\n\n<details>\n<summary>More</summary>\n\n- item\n\n</details>\n\n<pre><code class=\"language-js\">a &lt; b</code></pre>\n\n<table><tr><th>k</th></tr><tr><td>v</td></tr></table>";
    insta::assert_snapshot!(markdown(text), @"
    # Name
     | prose | Logo A tool
     | prose | More
     | item | - item
     | code js | a < b
     | table | | k |⏎|---|⏎| v |
    ");
}

#[test]
fn mdx_loses_modules_and_components() {
    let text = "import A from 'a'\nexport const meta = {\n  x: 1,\n}\n\n# Hi\n\n{/* note */}Text <Badge a={{b: \">\"}} /> here, `<Kept>`.\n\n<Tabs>\n  <TabItem value=\"a\" label=\"npm\">\n\n    ```bash\n    npm i <Raw>\n    ```\n\n    Indented words.\n\n  </TabItem>\n</Tabs>\n\n- list\n    - nested\n\n<div className={x}>shown</div>\n\n<Open";
    insta::assert_snapshot!(mdx(text), @"
    # Hi
     | prose | Text here, `<Kept>`.
     | prose | npm
     | code bash | npm i <Raw>
     | prose | Indented words.
     | item | - list
     | item |   - nested
     | prose | shown
     | prose | <Open
    ");
}
