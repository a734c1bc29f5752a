//! Tables for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};

/// Prints rows under a header; says so when there is none.
pub fn print(header: &[&str], rows: Vec<Vec<String>>, none: &str) {
    if rows.is_empty() {
        println!("{none}");
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    println!("{table}");
}

/// Text of others without what would move a terminal's cursor or change its colours.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c {
            // What turns the direction of writing shows another order than there is.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                c.escape_default().collect::<Vec<_>>()
            }
            c => vec![c],
        })
        .collect()
}

/// A field of a JSON object as text; empty where it is missing.
pub fn field(row: &serde_json::Value, path: &str) -> String {
    match row.pointer(path) {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_of_others_moves_the_cursor() {
        assert_eq!(super::printable("a\x1b[2Jb\u{9b}1m"), "a\\u{1b}[2Jb\\u{9b}1m");
    }
}
