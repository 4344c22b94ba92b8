//! From a tree of elements to blocks, with a stack of its own: depth costs memory, not call frames.

use dom_query::{Element, NodeData, NodeRef};

use super::{super::Flow, elements};

/// Parents asked for the language of a code block: highlighters wrap it in up to three elements.
const LANGUAGE_PARENTS: usize = 3;

/// What is left to do.
enum Step<'a> {
    Enter(NodeRef<'a>),
    Leave(End),
}

/// What an element still needs when all inside it was read.
enum End {
    Block,
    Heading(u8),
    List,
    Item,
    Quotation(Vec<(u8, String)>),
    Code,
    Caption,
    Cell,
    Row,
    Table,
}

/// Reads everything below and including `root`.
pub fn walk(flow: &mut Flow, root: NodeRef<'_>) {
    let mut steps = vec![Step::Enter(root)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Leave(end) => leave(flow, end),
            Step::Enter(node) => {
                let descend = match node.element_ref() {
                    Some(element) => enter(flow, &node, &element, &mut steps),
                    None => {
                        text(flow, &node);
                        true
                    }
                };
                if descend {
                    steps.extend(node.children_it(true).map(Step::Enter));
                }
            }
        }
    }
    flow.flush();
}

fn text(flow: &mut Flow, node: &NodeRef<'_>) {
    node.query(|node| {
        if let NodeData::Text { contents } = &node.data {
            flow.collapsed(contents);
        }
    });
}

/// Opens what the element stands for and says whether to go on with its children.
fn enter<'a>(flow: &mut Flow, node: &NodeRef<'a>, element: &Element, steps: &mut Vec<Step<'a>>) -> bool {
    let name = &*element.name.local;
    if name == "header" {
        flow.flush();
        return node.descendants_it().any(|inner| inner.has_name("h1")) && !in_body_only(node);
    }
    if elements::is_silent(element) {
        if name == "input" && elements::attribute(element, "type") == Some("checkbox") {
            flow.collapsed(if elements::attribute(element, "checked").is_some() { "[x] " } else { "[ ] " });
        }
        return false;
    }
    let end = match name {
        "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
            flow.flush();
            End::Heading(name.as_bytes()[1] - b'0')
        }
        "ul" | "ol" => {
            let first = elements::attribute(element, "start").and_then(|start| start.parse().ok()).unwrap_or(1);
            flow.open_list((name == "ol").then_some(first));
            End::List
        }
        "li" => {
            flow.open_item();
            End::Item
        }
        "blockquote" => End::Quotation(flow.enter_quotation()),
        "pre" | "xmp" => {
            flow.code(language_of(node), None, &code_text(node));
            return false;
        }
        "code" | "tt" | "samp" => {
            flow.open_code();
            End::Code
        }
        "table" if !node.descendants_it().any(|inner| inner.has_name("pre")) => {
            flow.open_table();
            End::Table
        }
        "caption" => End::Caption,
        "tr" => End::Row,
        "td" | "th" => End::Cell,
        "br" => {
            flow.line_break();
            return false;
        }
        "hr" => {
            flow.flush();
            return false;
        }
        "img" => {
            flow.collapsed(elements::attribute(element, "alt").unwrap_or(""));
            return false;
        }
        "listing" => {
            listing(flow, element);
            return true;
        }
        _ if elements::is_block(name) || name == "aside" => {
            flow.flush();
            End::Block
        }
        _ => {
            component(flow, name, element);
            return true;
        }
    };
    steps.push(Step::Leave(end));
    true
}

fn leave(flow: &mut Flow, end: End) {
    match end {
        End::Block => flow.flush(),
        End::Heading(level) => flow.heading(level),
        End::List => flow.close_list(),
        End::Item => flow.close_item(),
        End::Quotation(open) => flow.leave_quotation(open),
        End::Code => flow.close_code(),
        End::Caption => flow.close_caption(),
        End::Cell => flow.close_cell(),
        End::Row => flow.close_row(),
        End::Table => flow.close_table(),
    }
}

/// Whether a header is the site's: no element above it marks the main content.
fn in_body_only(header: &NodeRef<'_>) -> bool {
    !header.ancestors_it(None).any(|parent| {
        parent.has_name("main")
            || parent.has_name("article")
            || parent.element_ref().is_some_and(|element| elements::attribute(&element, "role") == Some("main"))
    })
}

/// mdBook's `<Listing number= caption= file-name=>` around a code block.
fn listing(flow: &mut Flow, element: &Element) {
    flow.flush();
    if let Some(file) = elements::attribute(element, "file-name") {
        flow.title_code(file);
    }
    if let Some(caption) = elements::attribute(element, "caption") {
        if let Some(number) = elements::attribute(element, "number") {
            flow.collapsed(&format!("Listing {number}: "));
        }
        flow.collapsed(caption);
        flow.flush();
    }
}

/// What a component of the site's own (`<Card title=>`) shows of its attributes.
fn component(flow: &mut Flow, name: &str, element: &Element) {
    if elements::is_element(name) {
        return;
    }
    let shown = ["title", "label", "caption"].iter().find_map(|attribute| elements::attribute(element, attribute));
    if let Some(text) = shown {
        flow.flush();
        flow.collapsed(text);
        flow.flush();
    }
}

/// The language of a code block: its own, its code element's, or that of a wrapper.
fn language_of(pre: &NodeRef<'_>) -> Option<String> {
    let of = |node: NodeRef<'_>| node.element_ref().and_then(|element| elements::language(&element));
    let inner = || pre.children_it(false).find_map(of);
    let outer = || pre.ancestors_it(Some(LANGUAGE_PARENTS)).find_map(of);
    of(*pre).or_else(inner).or_else(outer)
}

/// The text of a code block as it is shown, without line numbers and buttons.
fn code_text(pre: &NodeRef<'_>) -> String {
    let mut code = String::new();
    let mut nodes: Vec<NodeRef<'_>> = pre.children_it(true).collect();
    while let Some(node) = nodes.pop() {
        node.query(|node| {
            if let NodeData::Text { contents } = &node.data {
                code.push_str(contents);
            }
        });
        let Some(element) = node.element_ref() else { continue };
        if &*element.name.local == "br" {
            code.push('\n');
        } else if !elements::is_silent(&element) {
            nodes.extend(node.children_it(true));
        }
    }
    code
}
