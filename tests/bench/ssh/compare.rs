//! What was measured on several ways, round by round, and the rows that it makes.

use super::stage::Way;
use crate::table::Row;

/// Figures of one kind.
#[derive(Default)]
pub struct Samples(Vec<(Way, Vec<f64>)>);

/// What is measured, and the ratios that are aimed at.
pub struct Question {
    /// What, and how big.
    pub what: String,
    /// Of what is counted.
    pub unit: &'static str,
    pub more_is_better: bool,
    /// Beside `ssh`.
    pub direct: Option<f64>,
    /// Beside `ssh -J`.
    pub jumped: Option<f64>,
}

impl Samples {
    pub fn add(&mut self, way: Way, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == way) {
            Some((_, values)) => values.push(value),
            None => self.0.push((way, vec![value])),
        }
    }

    /// Custody, at each level that was measured, beside each other way that was.
    pub fn rows(&self, question: &Question) -> Vec<Row> {
        let mut rows = Vec::new();
        for (way, ours) in self.ours() {
            for (other, aim) in [(Way::Direct, question.direct), (Way::Jumped, question.jumped)] {
                let theirs = self.0.iter().find(|(known, _)| *known == other);
                let Some((_, theirs)) = theirs else { continue };
                rows.push(question.row(
                    way,
                    ours.iter().copied().zip(theirs.iter().copied()),
                    other.name(),
                    aim,
                ));
            }
        }
        rows
    }

    /// Custody, at each level, beside a figure that is not to be exceeded.
    pub fn beside_goal(&self, question: &Question, goal: f64) -> Vec<Row> {
        let row = |(way, ours): (Way, &Vec<f64>)| {
            question.row(way, ours.iter().map(|ours| (*ours, goal)), "the goal", Some(1.0))
        };
        self.ours().map(row).collect()
    }

    fn ours(&self) -> impl Iterator<Item = (Way, &Vec<f64>)> {
        self.0.iter().filter(|(way, _)| matches!(way, Way::Custody(_))).map(|(way, values)| (*way, values))
    }
}

impl Question {
    fn row(
        &self,
        way: Way,
        pairs: impl Iterator<Item = (f64, f64)>,
        beside: &'static str,
        aim: Option<f64>,
    ) -> Row {
        Row {
            name: format!("{}, {}, {}", self.what, way.name(), self.unit),
            pairs: pairs.collect(),
            beside,
            more_is_better: self.more_is_better,
            aim,
        }
    }
}

/// The aim "at most so much of theirs" as the table has it, where a ratio says how much better ours is.
pub fn at_most(share: f64) -> Option<f64> {
    Some(1.0 / share)
}
