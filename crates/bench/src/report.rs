//! What came out: `report.json`, and the same on the terminal.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::against::{self, Against};
use crate::machine::Machine;
use crate::measurements::{Better, Measurement, Way};
use crate::other;
use crate::programs::Contender;
use crate::race::Curve;
use crate::rounds::Rounds;
use crate::stats::{median, percentile_95, range, ratio, ratios};
use crate::text::{grid, number};

/// What the numbers are; stands below every report.
pub const FOOT: &str = "A value is the median over its rounds; beside it the lowest and the highest round. `1.72x (1.55 - 1.92)`: ours is \
1.72 times better, the median over the rounds of the ratio within a round, beside it the lowest and the highest; a machine's \
speed drifts, and within a round all contenders run shortly after one another. time_to_19db, time_to_19db_same_start: \
each round has its own seed (1, 2, 3, …), which nobody has chosen. The value is the median over the seeds, and the ratio to a peer \
is the ratio of the medians. A training that does not reach the score within 6 epochs counts as infinitely long.";

/// The whole of `report.json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The versions of all libraries.
    pub versions: BTreeMap<String, String>,
    /// How they were used.
    pub settings: Value,
    /// How long the measuring took.
    pub seconds: f64,
    /// The measurements.
    pub results: Vec<Outcome>,
    /// The tables, each a list of rows.
    pub tables: Map<String, Value>,
    /// What the numbers are.
    pub foot: &'static str,
}

/// What one measurement came to. A value that is not there is null, and `absent` says why.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub what: &'static str,
    /// The unit of its values.
    pub unit: &'static str,
    /// Which values are better.
    pub better: Better,
    /// The median of our rounds.
    pub ours: Option<f64>,
    /// Our lowest and highest round.
    pub range: Option<[f64; 2]>,
    /// The 95th percentile of our rounds, where there are at least 20.
    pub p95: Option<f64>,
    /// Our rounds.
    pub rounds: Vec<f64>,
    /// The loss that our last round ended with.
    pub loss: Option<f64>,
    /// The median of each peer's rounds.
    pub peers: BTreeMap<&'static str, f64>,
    /// Each peer's lowest and highest round.
    pub peer_ranges: BTreeMap<&'static str, [f64; 2]>,
    /// The 95th percentile of each peer's rounds, where there are at least 20.
    pub peer_p95: BTreeMap<&'static str, f64>,
    /// Each peer's rounds.
    pub peer_rounds: BTreeMap<&'static str, Vec<f64>>,
    /// The loss that each peer's last round ended with.
    pub peer_losses: BTreeMap<&'static str, f64>,
    /// How many times better ours is than each peer: the median over the rounds of the ratio within a
    /// round; in a race the ratio of the medians.
    pub ratio: BTreeMap<&'static str, f64>,
    /// The lowest and the highest ratio within a round; none in a race, where seeds are no pairs.
    pub ratio_range: BTreeMap<&'static str, [f64; 2]>,
    /// What is wanted: a number to stay below, or for a peer how many times better to be.
    pub target: Value,
    /// Whether everything that is wanted is reached; null if it is not known.
    pub reached: Option<bool>,
    /// Who is missing, and why.
    pub absent: BTreeMap<&'static str, String>,
    /// How ours compares with another commit, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// The course of each training in a race.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
}

impl Outcome {
    /// Makes numbers of rounds; ours come first. `commit` is the other commit, if there is one.
    pub fn new(
        measurement: &Measurement,
        all: Vec<(Contender, Rounds)>,
        commit: Option<&str>,
    ) -> Outcome {
        let targets: BTreeMap<&str, f64> = measurement
            .peers
            .iter()
            .filter_map(|(peer, target)| Some((peer.name, (*target)?)))
            .collect();
        let mut outcome = Outcome {
            name: measurement.name,
            what: measurement.what,
            unit: measurement.unit,
            better: measurement.better,
            ours: None,
            range: None,
            p95: None,
            rounds: Vec::new(),
            loss: None,
            peers: BTreeMap::new(),
            peer_ranges: BTreeMap::new(),
            peer_p95: BTreeMap::new(),
            peer_rounds: BTreeMap::new(),
            peer_losses: BTreeMap::new(),
            ratio: BTreeMap::new(),
            ratio_range: BTreeMap::new(),
            target: match measurement.limit {
                Some(limit) => json!(limit),
                None if targets.is_empty() => Value::Null,
                None => json!(targets),
            },
            reached: None,
            absent: BTreeMap::new(),
            against: None,
            curves: Vec::new(),
        };
        for (at, (contender, rounds)) in all.into_iter().enumerate() {
            let name = contender.name;
            outcome.curves.extend(rounds.curves);
            if let Some(reason) = rounds.absent {
                outcome.absent.insert(name, reason);
            }
            let values = rounds.values;
            if at == 0 {
                outcome.ours = median(&values);
                outcome.range = range(&values);
                outcome.p95 = percentile_95(&values);
                outcome.rounds = values;
                outcome.loss = rounds.loss;
                continue;
            }
            if contender.against {
                let (commit, better) = (commit.unwrap_or_default(), measurement.better);
                outcome.against = Against::new(commit, &outcome.rounds, values, better);
                continue;
            }
            if let Some((value, range)) = median(&values).zip(range(&values)) {
                outcome.peers.insert(name, value);
                outcome.peer_ranges.insert(name, range);
                outcome
                    .peer_p95
                    .extend(percentile_95(&values).map(|value| (name, value)));
                outcome.peer_rounds.insert(name, values);
            }
            if let Some(loss) = rounds.loss {
                outcome.peer_losses.insert(name, loss);
            }
        }
        outcome.compare(measurement.way);
        outcome.reached = outcome.reaches(measurement.limit, &targets);
        outcome
    }

    /// The ratios, where there are any: two that never arrive have none.
    fn compare(&mut self, way: Way) {
        for (name, values) in &self.peer_rounds {
            let (ratio, pairs) = match way {
                Way::Race => {
                    let medians = self.ours.zip(median(values));
                    let ratio = medians.map(|(ours, peer)| ratio(ours, peer, self.better));
                    (ratio, None)
                }
                _ => {
                    let ratios = ratios(&self.rounds, values, self.better);
                    (median(&ratios), range(&ratios))
                }
            };
            self.ratio
                .extend(ratio.filter(|ratio| !ratio.is_nan()).map(|it| (*name, it)));
            self.ratio_range.extend(pairs.map(|pairs| (*name, pairs)));
        }
    }

    /// Whether all targets are reached: known once one is missed, or all are known to be met.
    fn reaches(&self, limit: Option<f64>, targets: &BTreeMap<&str, f64>) -> Option<bool> {
        let own = limit.map(|limit| self.ours.map(|ours| self.keeps(limit, ours)));
        let beside = targets
            .iter()
            .map(|(name, target)| self.ratio.get(name).map(|ratio| ratio >= target));
        let all: Vec<Option<bool>> = own.into_iter().chain(beside).collect();
        match &all[..] {
            [] => None,
            all if all.contains(&Some(false)) => Some(false),
            all if all.contains(&None) => None,
            _ => Some(true),
        }
    }

    /// Whether the other commit does not know this measurement: its worker refused the request.
    pub fn unknown_there(&self) -> bool {
        let reason = self.absent.get(other::NAME);
        reason.is_some_and(|reason| reason.contains("unknown request"))
    }

    /// Whether a value is no worse than the limit.
    fn keeps(&self, limit: f64, value: f64) -> bool {
        match self.better {
            Better::Higher => value >= limit,
            Better::Lower => value <= limit,
        }
    }

    /// The measurement as lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let better = match self.better {
            Better::Higher => "higher is better",
            Better::Lower => "lower is better",
        };
        let mut lines = vec![format!(
            "{}: {} ({}, {better})",
            self.name, self.what, self.unit
        )];
        if let Some((ours, range)) = self.ours.zip(self.range) {
            let most = match self.better {
                Better::Higher => "at least",
                Better::Lower => "at most",
            };
            let limit = self.target.as_f64().map_or(String::new(), |limit| {
                format!(
                    "{most} {}: {}",
                    number(limit),
                    verdict(self.keeps(limit, ours))
                )
            });
            lines.push(line(
                "ours",
                ours,
                range,
                self.loss,
                &format!("{}{limit}", p95(self.p95)),
            ));
        }
        if let Some(other) = &self.against {
            let name = format!("{} {}", other::NAME, other.short());
            lines.push(line(&name, other.value, other.range, None, &other.words()));
        }
        for (name, value) in &self.peers {
            let ratio = self.ratio.get(name).map_or(String::new(), |ratio| {
                let target = self.target[*name].as_f64();
                let target = target.map_or(String::new(), |target| {
                    format!(" (target {target}: {})", verdict(*ratio >= target))
                });
                let pairs = self.ratio_range.get(name);
                let pairs = pairs.map_or(String::new(), |[low, high]| {
                    format!(" ({low:.2} - {high:.2})")
                });
                match ratio.is_finite() {
                    true => format!("{ratio:.2}x{pairs}{target}"),
                    false => format!("ours alone arrives{target}"),
                }
            });
            let loss = self.peer_losses.get(name).copied();
            let ratio = format!("{}{ratio}", p95(self.peer_p95.get(name).copied()));
            lines.push(line(name, *value, self.peer_ranges[name], loss, &ratio));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in &self.absent {
            reasons.entry(reason).or_default().push(name);
        }
        for (reason, names) in reasons {
            lines.push(format!("  absent: {}: {reason}", names.join(", ")));
        }
        lines
    }
}

fn p95(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| {
        format!("95 % within {}   ", number(value))
    })
}

fn line(name: &str, value: f64, [low, high]: [f64; 2], loss: Option<f64>, more: &str) -> String {
    let range = format!("{} - {}", number(low), number(high));
    let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.4}"));
    format!(
        "  {name:<16} {:>9}   {range:<19} {loss:<12} {more}",
        number(value)
    )
    .trim_end()
    .to_owned()
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

impl Report {
    /// Writes `report.json`, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        figures::write_whole(path, text.as_bytes())
    }

    /// The report for a terminal.
    pub fn print(&self) {
        if self.settings["quick"] == true {
            println!(
                "\nQuick: few rounds and steps, a race to the first score. These numbers mean little."
            );
        }
        println!("\n{}", self.machine.line());
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        println!("{}\n", versions.join(", "));
        for outcome in &self.results {
            println!("{}\n", outcome.lines().join("\n"));
        }
        for (name, rows) in &self.tables {
            println!("{name}:");
            println!("{}", grid(rows).join("\n"));
            println!();
        }
        self.print_comparison();
        println!("{}", self.foot);
    }

    /// The comparison with another commit, where there is one.
    fn print_comparison(&self) {
        let compared = self.results.iter().filter_map(|outcome| {
            let (ours, against) = outcome.ours.zip(outcome.against.as_ref())?;
            Some((outcome.name, ours, against))
        });
        let lines = against::table(&compared.collect::<Vec<_>>());
        if !lines.is_empty() {
            println!("{}\n\n{}\n", lines.join("\n"), against::INTERVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::MEASUREMENTS;

    fn rounds(values: &[f64]) -> Rounds {
        Rounds {
            values: values.to_vec(),
            ..Default::default()
        }
    }

    fn outcome(name: &str, ours: &[f64], peer: &[f64]) -> Outcome {
        let found = MEASUREMENTS.iter().find(|m| m.name == name).unwrap();
        let all = [found.ours, found.peers[0].0];
        let values = [rounds(ours), rounds(peer)];
        Outcome::new(found, all.into_iter().zip(values).collect(), None)
    }

    #[test]
    fn a_target_is_reached_missed_or_not_known() {
        let times = |ours: &[f64], peer: &[f64]| outcome("time_to_19db", ours, peer);
        let fast = times(&[30.0, 40.0, 35.0], &[120.0, 110.0, 115.0]);
        assert_eq!((fast.ours, fast.reached), (Some(35.0), Some(true)));
        assert!((fast.ratio["keras-float32"] - 115.0 / 35.0).abs() < 1e-12);
        assert_eq!(times(&[35.0], &[90.0]).reached, Some(false));
        assert_eq!(times(&[35.0], &[]).reached, None);
        assert_eq!(outcome("mnist_load", &[0.2], &[0.5]).reached, Some(true));
        assert_eq!(outcome("mnist_load", &[0.3], &[]).reached, Some(false));
    }

    #[test]
    fn a_ratio_is_the_median_of_those_within_rounds() {
        // Half the speed in the second round, for both.
        let found = outcome(
            "cnn_train_mixed",
            &[2000.0, 900.0, 1900.0],
            &[1000.0, 500.0, 1000.0],
        );
        assert_eq!(found.ours, Some(1900.0));
        assert_eq!(found.ratio["keras-float32"], 1.9);
        assert_eq!(found.ratio_range["keras-float32"], [1.8, 2.0]);
        let lines = found.lines();
        assert!(lines[2].contains("1.90x (1.80 - 2.00)"), "{lines:?}");
    }

    #[test]
    fn another_commit_is_no_peer() {
        let found = MEASUREMENTS.iter().find(|m| m.name == "explorer").unwrap();
        let all = [found.ours, other::other_than(&found.ours)];
        let values = [rounds(&[1.0; 6]), rounds(&[1.5; 6])];
        let found = Outcome::new(
            found,
            all.into_iter().zip(values).collect(),
            Some("0123456789"),
        );
        let lines = found.lines();
        assert!(
            lines[2].contains("against 01234567") && lines[2].contains("1.500"),
            "{lines:?}"
        );
        let json = serde_json::to_value(found).unwrap();
        assert_eq!(json["against"]["ratio"], 1.5);
        assert_eq!(json["against"]["interval"], json!([1.5, 1.5]));
        assert_eq!(json["against"]["commit"], "0123456789");
        assert_eq!(json["peers"], json!({}));
    }

    #[test]
    fn another_commit_may_not_know_a_measurement() {
        let found = MEASUREMENTS.iter().find(|m| m.name == "explorer").unwrap();
        let absent = |reason: &str| {
            let theirs = Rounds {
                absent: Some(reason.to_owned()),
                ..Default::default()
            };
            let all = [
                (found.ours, rounds(&[1.0])),
                (other::other_than(&found.ours), theirs),
            ];
            Outcome::new(found, all.into(), Some("0123456789"))
        };
        assert!(absent("against answers: unknown request \"explorer\"").unknown_there());
        assert!(!absent("against ended (signal: 9)").unknown_there());
    }

    #[test]
    fn where_nobody_arrives_there_is_no_ratio() {
        let found = outcome("time_to_19db", &[f64::INFINITY], &[f64::INFINITY]);
        assert!(found.ratio.is_empty() && found.ratio_range.is_empty());
        assert_eq!(found.reached, None);
    }

    #[test]
    fn the_report_has_the_contract_s_fields() {
        let json = serde_json::to_value(outcome("time_to_19db", &[35.0], &[f64::INFINITY]));
        let json = json.unwrap();
        for field in ["name", "unit", "ours", "range", "peers", "ratio", "target"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["better"], "lower");
        assert_eq!(json["target"]["keras-float32"], 3.0);
        // A peer that never arrived: no number, and the word on the terminal.
        assert_eq!(json["peers"]["keras-float32"], Value::Null);
        let lines = outcome("time_to_19db", &[35.0], &[f64::INFINITY]).lines();
        assert!(lines[2].contains("never within 6 epochs"), "{lines:?}");
        assert!(lines[2].contains("ours alone arrives"), "{lines:?}");
    }
}
