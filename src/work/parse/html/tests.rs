//! What a reader sees of a web page.

use super::scan;
use crate::work::parse::{Format, parse, tests::outline_of};

fn html(text: &str) -> String {
    outline_of(&parse(Format::Html, "page.html", text))
}

#[test]
fn the_main_content_is_read_without_what_surrounds_it() {
    let page = "<!doctype html><html lang=en><head><title>Site</title><meta name=description content='About it'></head>\
        <body><nav>Menu</nav><header><h1>Brand</h1></header><main><header><h1>Guide <a class=headerlink>¶</a></h1></header>\
        <p>Some <em>text</em>\n with <code>code</code>.<script>x</script><span hidden>no</span></p><aside>Ad</aside>\
        <aside class='starlight-aside--tip'>Tip text</aside><h2 id=a>Part<a href='#a'>#</a></h2><p>More<br>lines</p></main>\
        <footer>Foot</footer></body></html>";
    let parsed = parse(Format::Html, "page.html", page);
    insta::assert_snapshot!(outline_of(&parsed), @"
    # Guide
     | prose | Some text with `code`.
     | prose | Tip text
    Part | prose | More⏎lines
    ");
    assert_eq!(
        serde_json::Value::Object(parsed.metadata),
        serde_json::json!({"language": "en", "description": "About it"})
    );
}

#[test]
fn a_signature_is_a_heading_with_its_bounds() {
    let page = "<h1>Vec</h1><section><a href='#m'>§</a><h4 class=code-header>pub fn <a href=x>len</a>(&amp;self)\
        <div class=where>where T: Copy,</div></h4></section><p>Length<sup class=footnote-reference>1</sup>.</p>\
        <pre class=rust><span class=boring>hidden\n</span>let a;</pre>";
    insta::assert_snapshot!(html(page), @"
    # Vec
    pub fn len(&self) where T: Copy, | prose | Length.
    pub fn len(&self) where T: Copy, | code rust | let a;
    ");
}

#[test]
fn the_title_falls_back_to_the_head() {
    assert!(html("<title>Head\n title</title><p>x").starts_with("# Head title\n"));
    assert!(html("<p>x").starts_with("# Page\n"));
}

#[test]
fn code_blocks_keep_their_language_and_lines() {
    let page = "<pre><code class='language-rust hljs'>fn f() {\n    1\n}\n</code></pre>\
        <div class='highlight-python notranslate'><div class=highlight><pre><span class=linenos>1</span>x = 1</pre></div></div>\
        <pre class='sourceCode sh'>ls<button>Copy</button></pre><pre class='rust rust-example-rendered'>let a;</pre>\
        <table><tr><td class=linenos><pre>1</pre></td><td class=code><pre data-lang=go>a<br>b</pre></td></tr></table><pre>plain &lt;T&gt;</pre>";
    insta::assert_snapshot!(html(page), @"
    # Page
     | code rust | fn f() {⏎    1⏎}
     | code python | x = 1
     | code sh | ls
     | code rust | let a;
     | code go | a⏎b
     | code - | plain <T>
    ");
}

#[test]
fn lists_tables_and_definitions_become_markdown() {
    let page = "<ul><li>a<ol start=3><li><p>b</p></ol><li>c <input type=checkbox checked>d</ul>\
        <table><caption>Cap</caption><thead><tr><th>k<th>v</thead><tr><td>1<td>x | y<ul><li>z</ul></table>\
        <dl><dt>term<dd>meaning</dl><blockquote><h3>Q</h3>quoted</blockquote>after<custom-card title='Card'>inner</custom-card>";
    insta::assert_snapshot!(html(page), @"
    # Page
     | item | - a
     | item |   3. b
     | item | - c [x] d
     | prose | Cap
     | table | | k | v |⏎|---|---|⏎| 1 | x \\| y z |
     | prose | term
     | prose | meaning
    Q | prose | quoted
     | prose | after
     | prose | Card
     | prose | inner
    ");
}

#[test]
fn markup_beyond_bounds_is_read_without_its_tags() {
    let deep = "<div>".repeat(10_000) + "one &amp; <b>two</b><script>no</script><p>three";
    assert!(!scan::is_tame(&deep));
    insta::assert_snapshot!(html(&deep), @"
    # Page
     | prose | one & two
     | prose | three
    ");
}

#[test]
fn ordinary_markup_is_within_bounds() {
    let list = "<ul>".to_owned() + &"<li><a href='x' title=\"a > b\">item</a>\n<p>text<br>".repeat(2_000) + "</ul>";
    let svg = "<svg>".to_owned() + &"<path d='M 1 2 3 4'/><g><use/></g>".repeat(2_000) + "</svg>";
    let script = "<script>if (a<b && c</d) {}</script><!-- <div> -->".repeat(2_000);
    for page in [list, svg, script] {
        assert!(scan::is_tame(&page), "{page:.80}");
    }
    for (unit, count) in [("<i a=1 b=2>", 600), ("<svg><style><g>", 600), ("<p a b c d ", 2_000), ("<div></p>", 1_000)]
    {
        assert!(!scan::is_tame(&unit.repeat(count)), "{unit}");
    }
}
