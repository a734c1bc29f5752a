//! What is measured, beside what; for people and for programs.

use serde_json::json;

/// One line of the table.
pub struct Row {
    /// What was measured, with its unit.
    pub name: String,
    /// By Custody, and by what stands beside it, one right after the other.
    pub pairs: Vec<(f64, f64)>,
    /// What that is.
    pub beside: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// The ratio that is aimed at; none yet.
    pub aim: Option<f64>,
}

impl Row {
    fn ours(&self) -> f64 {
        median(self.pairs.iter().map(|(ours, _)| *ours).collect())
    }

    fn theirs(&self) -> f64 {
        median(self.pairs.iter().map(|(_, theirs)| *theirs).collect())
    }

    /// How much better than what stands beside it: 1 is equal, 2 twice as good. The middle of the pairs' ratios: what
    /// slows a machine down for a while slows both of a pair.
    fn ratio(&self) -> f64 {
        let better =
            |(ours, theirs): &(f64, f64)| if self.more_is_better { ours / theirs } else { theirs / ours };
        median(self.pairs.iter().map(better).collect())
    }
}

pub fn text(rows: &[Row]) -> String {
    let mut out =
        format!("\n{:<52}{:>10}{:>10}  {:<36}{:>7}{:>6}\n", "", "ours", "beside", "", "ratio", "aim");
    for row in rows {
        let aim = row.aim.map_or_else(|| "–".to_owned(), |aim| format!("{aim:.2}"));
        let (ours, theirs, ratio) = (number(row.ours()), number(row.theirs()), row.ratio());
        out += &format!("{:<52}{ours:>10}{theirs:>10}  {:<36}{ratio:>7.2}{aim:>6}\n", row.name, row.beside);
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
                "name": row.name, "ours": row.ours(), "theirs": row.theirs(), "beside": row.beside,
                "ratio": row.ratio(), "aim": row.aim, "pairs": row.pairs,
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
