//! Front matter: YAML between `---` lines or TOML between `+++` lines at the top of a file.
//!
//! What is clearly delimited is kept out of the text even when it does not parse; a rule that merely opens a page is
//! left alone. Values that JSON cannot hold become strings or null.

use serde_json::{Map, Value};

/// Longer front matter is cut away without being read: it is data, not a description of the page.
const SIZE_LIMIT: usize = 64 * 1024;

/// The front matter of `text`, empty if there is none, and what follows it.
pub fn split(text: &str) -> (Map<String, Value>, &str) {
    for (fence, closings) in [("---", ["---", "..."]), ("+++", ["+++", "+++"])] {
        let Some((matter, body)) = delimited(text, fence, closings) else { continue };
        if matter.len() > SIZE_LIMIT {
            return if looks_like_settings(matter) { (Map::new(), body) } else { (Map::new(), text) };
        }
        let parsed = if fence == "---" { read_yaml(matter) } else { read_toml(matter) };
        return match parsed {
            Some(map) => (map, body),
            None if matter.trim().is_empty() || looks_like_settings(matter) => (Map::new(), body),
            None => (Map::new(), text),
        };
    }
    (Map::new(), text)
}

/// The title that front matter gives the page.
pub fn title(metadata: &Map<String, Value>) -> Option<String> {
    let title = match metadata.get("title")? {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!title.is_empty()).then_some(title)
}

/// What stands between a first line `fence` and the next line that closes it.
fn delimited<'a>(text: &'a str, fence: &str, closings: [&str; 2]) -> Option<(&'a str, &'a str)> {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| line.trim_end() == fence && line.ends_with('\n'))?;
    let mut end = first.len();
    for line in lines {
        if closings.contains(&line.trim_end()) {
            return Some((&text[first.len()..end], &text[end + line.len()..]));
        }
        end += line.len();
    }
    None
}

/// Whether the first line that says something is `key:`, `key =` or `[table]`.
fn looks_like_settings(matter: &str) -> bool {
    let first = matter.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| {
        let key = line.trim_start_matches(|letter: char| letter.is_alphanumeric() || "_-.\"'".contains(letter));
        let named = key.len() < line.len() && key.trim_start().starts_with([':', '=']);
        named || (line.starts_with('[') && line.ends_with(']'))
    })
}

fn read_yaml(matter: &str) -> Option<Map<String, Value>> {
    match serde_norway::from_str::<serde_norway::Value>(matter).ok()? {
        serde_norway::Value::Mapping(mapping) => Some(json_map(mapping)),
        _ => None,
    }
}

/// Keys that are no strings are written out; the parser bounds the depth of nesting.
fn json_map(mapping: serde_norway::Mapping) -> Map<String, Value> {
    let entries = mapping.into_iter().map(|(key, value)| {
        let key = match json(key) {
            Value::String(key) => key,
            other => other.to_string(),
        };
        (key, json(value))
    });
    entries.collect()
}

fn json(value: serde_norway::Value) -> Value {
    use serde_norway::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(number).unwrap_or(Value::Null),
        Yaml::String(text) => string(&text),
        Yaml::Sequence(items) => items.into_iter().map(json).collect(),
        Yaml::Mapping(mapping) => Value::Object(json_map(mapping)),
        Yaml::Tagged(tagged) => json(tagged.value),
    }
}

/// A string that a JSON column can hold: an escaped NUL is dropped.
fn string(text: &str) -> Value {
    Value::String(text.replace('\0', ""))
}

fn read_toml(matter: &str) -> Option<Map<String, Value>> {
    let table: toml::Table = toml::from_str(matter).ok()?;
    Some(table.into_iter().map(|(key, value)| (key, json_of_toml(value))).collect())
}

fn json_of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => string(&text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(json_of_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json_of_toml(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_toml_are_read_and_cut_away() {
        let (map, body) = split("---\ntitle: A\ntags: [x, 2]\n1: one\nday: 2024-01-02\n---\n# B\n");
        assert_eq!(Value::Object(map), json!({"title": "A", "tags": ["x", 2], "1": "one", "day": "2024-01-02"}));
        assert_eq!(body, "# B\n");
        let (map, body) = split("+++\r\ntitle = 'A'\nday = 2024-01-02\n[x]\ny = 1.5\n+++\r\nB");
        assert_eq!(Value::Object(map), json!({"title": "A", "day": "2024-01-02", "x": {"y": 1.5}}));
        assert_eq!(body, "B");
    }

    #[test]
    fn broken_front_matter_is_kept_out_of_the_text() {
        assert_eq!(split("---\ntitle: [a\nb: }\n---\nText"), (Map::new(), "Text"));
        assert_eq!(split("+++\ntitle = \n+++\nText"), (Map::new(), "Text"));
        assert_eq!(split("---\n---\nText"), (Map::new(), "Text"));
    }

    #[test]
    fn a_rule_is_no_front_matter() {
        for text in ["---\n\nSome text.\n\n---\nMore", "---\ntitle: x\n", "--- \ntext", "text\n---\na: b\n---\n", "---"]
        {
            assert_eq!(split(text), (Map::new(), text));
        }
    }

    #[test]
    fn deep_nesting_and_exploding_aliases_are_harmless() {
        let deep = format!("---\na: {}\n---\nText", "[".repeat(100_000));
        assert_eq!(split(&deep).1, "Text");
        let mut bomb = String::from("---\na0: &a0 [x, x]\n");
        for level in 1..60 {
            bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1);
        }
        assert_eq!(split(&(bomb + "---\nText")).1, "Text");
    }
}
