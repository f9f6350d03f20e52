//! Rounds: every contender once, then every contender again, so that whatever the machine does meanwhile
//! befalls all of them. Each round begins with another contender than the one before.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::contender::{Place, Worker};
use crate::measurements::{Contender, Measurement, Way};
use crate::race::{self, Curve};
use crate::text::number;

/// One measuring from beginning to end.
#[derive(Debug)]
pub struct Session {
    /// Where contenders find what they need.
    pub place: Place,
    /// Whether it is only to be seen that everything works.
    pub quick: bool,
    /// The versions of all libraries that contenders named.
    pub versions: BTreeMap<String, String>,
    /// How contenders use them.
    pub settings: BTreeMap<String, String>,
    /// Workers that live through all rounds.
    workers: HashMap<&'static str, Worker>,
    /// Races that were run, by contender and seed: the same one is not run twice.
    races: HashMap<(Contender, usize), Curve>,
    /// Reasons for an absence that were told; many have the same.
    said: HashSet<String>,
}

/// What the rounds of one contender gave.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Its values, in the order of the rounds.
    pub values: Vec<f64>,
    /// The loss of its last round.
    pub loss: Option<f64>,
    /// The course of each round, where there is one.
    pub curves: Vec<Curve>,
    /// Why there is nothing, or nothing more.
    pub absent: Option<String>,
}

impl Session {
    /// A session that nobody has been asked in yet.
    pub fn new(place: Place, quick: bool) -> Session {
        Session {
            place,
            quick,
            versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            workers: HashMap::new(),
            races: HashMap::new(),
            said: HashSet::new(),
        }
    }

    /// Measures all contenders in turn, round after round.
    pub fn measure(&mut self, measurement: &Measurement) -> Vec<(Contender, Rounds)> {
        let peers = measurement.peers.iter().map(|(peer, _)| *peer);
        let mut all: Vec<(Contender, Rounds)> = [measurement.ours]
            .into_iter()
            .chain(peers)
            .map(|contender| (contender, Rounds::default()))
            .collect();
        let (full, quick) = measurement.rounds;
        let rounds = if self.quick { quick } else { full };
        for round in 1..=rounds {
            let mut line = Vec::new();
            for turn in 0..all.len() {
                let first = (round - 1) % all.len();
                let at = (first + turn) % all.len();
                let (contender, results) = &mut all[at];
                if results.absent.is_some() {
                    continue;
                }
                match self.once(measurement, contender, round, results) {
                    Ok(value) => {
                        results.values.push(value);
                        line.push(format!("{} {}", contender.name, number(value)));
                    }
                    Err(error) => {
                        self.workers.remove(contender.name);
                        let reason = format!("{error:#}");
                        if self.said.insert(reason.clone()) {
                            println!("  {}: {reason}", contender.name);
                        }
                        results.absent = Some(reason);
                    }
                }
            }
            if !line.is_empty() {
                println!("  round {round} of {rounds}: {}", line.join(", "));
            }
        }
        all
    }

    /// One contender, once.
    fn once(
        &mut self,
        measurement: &Measurement,
        contender: &Contender,
        round: usize,
        results: &mut Rounds,
    ) -> Result<f64> {
        if measurement.way == Way::Race {
            // A quick race ends with the first score, whatever that is.
            let goal = if self.quick { 0.0 } else { race::GOAL };
            let curve = match self.races.entry((*contender, round)) {
                Entry::Occupied(run) => run.get().clone(),
                Entry::Vacant(place) => {
                    let curve = race::run(contender, &self.place, round, goal)?;
                    place.insert(curve).clone()
                }
            };
            let seconds = curve.arrival(goal);
            results.curves.push(curve);
            return Ok(seconds);
        }
        let request = self.request((measurement.request)(self.quick));
        let reply = match measurement.way {
            Way::AskAnew => self.start(contender, &[])?.ask(&request)?,
            _ => self.worker(contender)?.ask(&request)?,
        };
        results.loss = reply.loss.or(results.loss);
        Ok(reply.value)
    }

    /// A request with what is common to all of them.
    pub fn request(&self, mut request: Value) -> Value {
        if request["threads"].is_null() {
            request["threads"] = json!(self.place.threads);
        }
        request
    }

    /// The worker of this contender, started when it is first asked.
    fn worker(&mut self, contender: &Contender) -> Result<&mut Worker> {
        if !self.workers.contains_key(contender.name) {
            let worker = self.start(contender, &[])?;
            self.workers.insert(contender.name, worker);
        }
        self.workers
            .get_mut(contender.name)
            .ok_or_else(|| anyhow!("{} has no worker", contender.name))
    }

    /// A new worker, ready to be asked.
    ///
    /// # Errors
    /// When it cannot be started; the text says why, and the mend.
    pub fn start(&mut self, contender: &Contender, more: &[String]) -> Result<Worker> {
        let mut worker = Worker::start(contender, &self.place, more)?;
        let ready = worker.ready()?;
        self.versions.extend(ready.versions);
        self.settings
            .insert(contender.name.to_owned(), ready.settings);
        Ok(worker)
    }

    /// Ends the workers that no later measurement asks.
    pub fn keep_for(&mut self, later: &[&Measurement]) {
        self.workers.retain(|name, _| {
            later.iter().any(|measurement| {
                let mut all = measurement.peers.iter().map(|(peer, _)| peer);
                measurement.way == Way::Ask
                    && (measurement.ours.name == *name || all.any(|peer| peer.name == *name))
            })
        });
    }
}
