//! The info string of a fence: its language, the title it is shown under, and what of its code a reader sees.

use std::borrow::Cow;

/// First words that are attributes of Rust's documentation tests, not languages.
const RUST_ATTRIBUTES: [&str; 5] = ["ignore", "no_run", "should_panic", "compile_fail", "edition2021"];

/// What an info string says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The language in lower case.
    pub language: Option<String>,
    /// `[file.ts]` of `VitePress`, `title="file.ts"` of Docusaurus and `MkDocs`.
    pub title: Option<String>,
}

impl Info {
    /// Reads `rust,ignore`, `js {1,3}`, `ts [vite.config.ts]`, `{.python .numberLines}`.
    pub fn parse(info: &str) -> Self {
        let word = info.trim().trim_start_matches(['{', '.', ' ']);
        let end =
            word.find(|letter: char| !(letter.is_alphanumeric() || "_-+#.".contains(letter))).unwrap_or(word.len());
        let language = word[..end].to_lowercase();
        let language = if RUST_ATTRIBUTES.contains(&language.as_str()) { "rust".to_owned() } else { language };
        let attribute = |open: &str, close: char| {
            let (_, rest) = info.split_once(open)?;
            rest.split_once(close).map(|(title, _)| title.trim().to_owned())
        };
        let title = attribute("title=\"", '"').or_else(|| attribute("title='", '\'')).or_else(|| attribute(" [", ']'));
        Self {
            language: Some(language).filter(|language| !language.is_empty()),
            title: title.filter(|title| !title.is_empty()),
        }
    }

    /// The code without the lines that documentation tests hide: `# ` begins one in Rust, `##` stands for `#`.
    pub fn visible<'a>(&self, code: &'a str) -> Cow<'a, str> {
        if self.language.as_deref() != Some("rust") || !code.contains('#') {
            return Cow::Borrowed(code);
        }
        let mut shown = String::with_capacity(code.len());
        for line in code.split_inclusive('\n') {
            let bare = line.trim_start();
            if bare.trim_end() == "#" || bare.starts_with("# ") {
                continue;
            }
            match bare.strip_prefix("##") {
                Some(rest) => shown.extend([&line[..line.len() - bare.len()], "#", rest]),
                None => shown.push_str(line),
            }
        }
        Cow::Owned(shown)
    }
}
