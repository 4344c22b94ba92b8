//! What a chunk says of its place: the page's title, and the section path on a second line.

use std::collections::HashMap;

use super::{
    split::{Boundary, split},
    weight::Scale,
};

/// The most a context may weigh: a quarter of the model's 256 tokens, so that the text has the rest.
const CONTEXT_LIMIT: usize = 64;

/// A context and its weight.
#[derive(Clone, Debug)]
pub struct Context {
    pub text: String,
    pub weight: usize,
}

/// The contexts of one page, each weighed once.
pub struct Contexts<'a> {
    title: &'a str,
    scale: &'a Scale<'a>,
    limit: usize,
    known: HashMap<Vec<String>, Context>,
}

impl<'a> Contexts<'a> {
    pub fn new(title: &'a str, scale: &'a Scale<'a>) -> Self {
        Self { title, scale, limit: CONTEXT_LIMIT.min(scale.room() / 3), known: HashMap::new() }
    }

    /// The context of a section.
    pub fn of(&mut self, section: &[String]) -> Context {
        if let Some(context) = self.known.get(section) {
            return context.clone();
        }
        let context = self.build(section);
        self.known.insert(section.to_vec(), context.clone());
        context
    }

    /// What the content of a chunk under `section` may weigh. Two tokens are kept for what joining may cost.
    pub fn budget(&mut self, section: &[String]) -> usize {
        self.scale.room().saturating_sub(self.of(section).weight + 2).max(1)
    }

    /// The whole path, else one with its middle left out, else the beginnings of title and last section.
    fn build(&self, section: &[String]) -> Context {
        let path: Vec<&str> = section.iter().map(String::as_str).collect();
        let mut candidates = vec![join(self.title, &path)];
        if let [first, .., last] = path.as_slice() {
            candidates.extend([join(self.title, &[first, "…", last]), join(self.title, &["…", last])]);
        }
        for text in candidates {
            let weight = self.scale.weigh(&text);
            if weight <= self.limit {
                return Context { text, weight };
            }
        }
        let text = match path.last() {
            Some(last) => join(&self.beginning(self.title, self.limit / 2), &[&self.beginning(last, self.limit / 2)]),
            None => self.beginning(self.title, self.limit),
        };
        Context { weight: self.scale.weigh(&text), text }
    }

    /// As many of the first words of `text` as fit; the whole if it does.
    fn beginning(&self, text: &str, limit: usize) -> String {
        if self.scale.weigh(text) <= limit {
            return text.to_owned();
        }
        let budget = limit.saturating_sub(1).max(1);
        // Far more characters than fit are not even looked at.
        let near: String = text.chars().take(CONTEXT_LIMIT * 10).collect();
        let parts = split(&near, &[Boundary::Word, Boundary::Character], budget, self.scale);
        format!("{}…", parts.first().map_or("", |part| part.trim_end()))
    }
}

fn join(title: &str, path: &[&str]) -> String {
    if path.is_empty() { title.to_owned() } else { format!("{title}\n{}", path.join(" > ")) }
}
