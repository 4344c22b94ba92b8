//! What is known of HTML elements by their name, class and attributes.

use dom_query::Element;

/// Every element of the HTML standard that a documentation page may use, and the obsolete ones that browsers know.
const KNOWN: &str = " a abbr acronym address applet area article aside audio b base bdi bdo big blockquote body br button \
canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em embed fieldset \
figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img input ins \
kbd label legend li link listing main map mark menu meta meter nav nobr noframes noscript object ol optgroup option \
output p param picture plaintext pre progress q rp rt ruby s samp script search section select slot small source span \
strike strong style sub summary sup svg math table tbody td template textarea tfoot th thead time title tr track tt u ul \
var video wbr xmp ";

/// Elements whose end tag may be left out, or that have none: they do not nest in themselves.
const FLAT: &str = " area base br col colgroup dd dt embed hr img input li link meta p param source tbody td tfoot th \
thead tr track wbr ";

/// Elements that browsers reopen in the next paragraph when they were not closed.
const FORMATTING: &str = " a b big code em font i nobr s small strike strong tt u ";

/// Elements whose content is not markup.
const RAW: &str = " script style textarea title xmp iframe noembed noframes ";

/// Elements that begin on a line of their own.
const BLOCKS: &str = " address article body caption center dd details dialog dir div dl dt fieldset figcaption figure \
footer form header hgroup html main menu nav p search section summary ";

/// Elements without text for a reader.
const SILENT: &str = " audio button canvas datalist dialog embed footer head iframe input link meta nav noscript object \
script select style svg template textarea title video ";

/// Classes of links that only point at their own heading, of line numbers, and of text for no eye.
const SILENT_CLASSES: &str = " headerlink header-anchor anchor-link anchorjs-link heading-anchor hash-link line-number \
line-numbers line-numbers-rows lineno linenos linenodiv gutter sr-only visually-hidden vp-copy-ignore copy-button \
copybtn ";

/// Classes of asides that belong to the text.
const NOTE_CLASSES: &str = "admonition aside callout note tip warning";

fn listed(list: &str, name: &str) -> bool {
    let mut rest = list;
    while let Some(found) = rest.find(name) {
        let (before, from) = rest.split_at(found);
        if !name.is_empty() && before.ends_with(' ') && from[name.len()..].starts_with(' ') {
            return true;
        }
        rest = &from[name.len().max(1)..];
    }
    false
}

/// Whether `name` (lower case) is an HTML element.
pub fn is_element(name: &str) -> bool {
    listed(KNOWN, name)
}

/// Whether elements called `name` (lower case) can contain one another.
pub fn nests(name: &str) -> bool {
    !listed(FLAT, name)
}

/// Whether browsers reopen an unclosed `name`.
pub fn is_formatting(name: &str) -> bool {
    listed(FORMATTING, &name.to_ascii_lowercase())
}

/// Whether what follows `<name>` (lower case) is not markup until its end tag.
pub fn is_raw(name: &str) -> bool {
    listed(RAW, name)
}

/// Whether `name` (lower case) begins on a line of its own.
pub fn is_block(name: &str) -> bool {
    listed(BLOCKS, name)
}

/// The value of an attribute.
pub fn attribute<'a>(element: &'a Element, name: &str) -> Option<&'a str> {
    element.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// The classes of an element.
pub fn classes(element: &Element) -> impl Iterator<Item = &str> {
    attribute(element, "class").unwrap_or("").split_ascii_whitespace()
}

/// Whether a reader sees nothing of the element, or nothing that belongs to the page's text.
pub fn is_silent(element: &Element) -> bool {
    let style = || attribute(element, "style").is_some_and(|style| style.replace(' ', "").contains("display:none"));
    let role =
        || attribute(element, "role").is_some_and(|role| matches!(role, "navigation" | "search" | "contentinfo"));
    let note = || {
        attribute(element, "role") == Some("note")
            || classes(element)
                .any(|class| class.split(['-', '_']).any(|part| NOTE_CLASSES.split(' ').any(|note| note == part)))
    };
    listed(SILENT, &element.name.local)
        || (&*element.name.local == "aside" && !note())
        || attribute(element, "hidden").is_some()
        || attribute(element, "aria-hidden") == Some("true")
        || classes(element).any(|class| listed(SILENT_CLASSES, class))
        || style()
        || role()
}

/// The code language that the element's classes or attributes name.
pub fn language(element: &Element) -> Option<String> {
    let data = attribute(element, "data-lang").or_else(|| attribute(element, "data-language"));
    let marked = || {
        classes(element).find_map(|class| {
            let marks = ["language-", "lang-", "highlight-source-", "highlight-", "src-"];
            marks.iter().find_map(|mark| class.strip_prefix(mark))
        })
    };
    let mut words = classes(element).skip_while(|class| !matches!(*class, "sourceCode" | "brush:" | "rust"));
    let named = || match (words.next(), words.next()) {
        (Some("rust"), _) => Some("rust"),
        (Some(_), Some(word)) => Some(word.trim_end_matches(';')),
        _ => None,
    };
    let language = data.or_else(marked).or_else(named)?.to_lowercase();
    (!matches!(language.as_str(), "" | "default" | "none" | "text" | "plaintext")).then_some(language)
}
