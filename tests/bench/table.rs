//! What is measured, beside what; for people and for programs.

use serde_json::json;

/// One line of the table.
pub struct Row {
    /// What was measured, with its unit.
    pub name: String,
    /// By Custody.
    pub ours: f64,
    /// By what stands beside it in the same run.
    pub beside: f64,
    /// What that is.
    pub beside_what: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// The ratio that is aimed at; none yet.
    pub aim: Option<f64>,
}

impl Row {
    /// How much better than what stands beside it: 1 is equal, 2 twice as good.
    fn ratio(&self) -> f64 {
        if self.more_is_better { self.ours / self.beside } else { self.beside / self.ours }
    }
}

pub fn text(rows: &[Row]) -> String {
    let mut out =
        format!("\n{:<58}{:>12}{:>12}  {:<34}{:>6}{:>6}\n", "", "ours", "beside", "", "ratio", "aim");
    for row in rows {
        let aim = row.aim.map_or_else(|| "–".to_owned(), |a| format!("{a:.2}"));
        out += &format!(
            "{:<58}{:>12}{:>12}  {:<34}{:>6.2}{:>6}\n",
            row.name,
            number(row.ours),
            number(row.beside),
            row.beside_what,
            row.ratio(),
            aim
        );
    }
    out
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

pub fn json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name, "ours": row.ours, "beside": row.beside, "beside_what": row.beside_what,
                "ratio": row.ratio(), "aim": row.aim,
            })
        })
        .collect();
    format!("{:#}\n", json!(rows))
}

/// The middle one of several measurements.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
