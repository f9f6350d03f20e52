//! Rounds: every contender once, then every contender again, so that a change of the machine's speed affects all of them. Each
//! round begins with the next contender.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::contender::{Place, Worker};
use crate::measurements::{Measurement, Way};
use crate::other;
use crate::programs::Contender;
use crate::race::{self, Curve};
use crate::text::number;

/// One measuring from beginning to end.
#[derive(Debug)]
pub struct Session {
    /// Where contenders find what they need.
    pub place: Place,
    /// Whether it is only to be seen that everything works.
    pub quick: bool,
    /// How many rounds, where not as many as a measurement says.
    pub rounds: Option<usize>,
    /// The versions of all libraries that contenders named.
    pub versions: BTreeMap<String, String>,
    /// How contenders use them.
    pub settings: BTreeMap<String, String>,
    /// Workers that live through all rounds.
    workers: HashMap<Contender, Worker>,
    /// Races that were run, by contender and seed: the same one is not run twice.
    races: HashMap<(Contender, usize), Curve>,
    /// Reasons that were printed already; several contenders can have the same.
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
    /// A session that has measured nothing yet.
    pub fn new(place: Place, quick: bool, rounds: Option<usize>) -> Session {
        Session {
            place,
            quick,
            rounds,
            versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            workers: HashMap::new(),
            races: HashMap::new(),
            said: HashSet::new(),
        }
    }

    /// Who takes part in a measurement; ours comes first. Beside another commit the peers only take part where they were named.
    fn contenders(&self, measurement: &Measurement) -> Vec<Contender> {
        let beside = self.place.against.is_some();
        let peers = match beside && self.place.peers.is_none() {
            true => &[],
            false => measurement.peers,
        };
        let mut all = vec![measurement.ours];
        all.extend(beside.then(|| other::other_than(&measurement.ours)));
        all.extend(peers.iter().map(|(peer, _)| *peer));
        all
    }

    /// How many rounds a measurement has here.
    fn rounds_of(&self, measurement: &Measurement) -> usize {
        let (full, quick) = measurement.rounds;
        match self.rounds {
            _ if measurement.repeats_itself() => 1,
            Some(rounds) => rounds,
            None if self.quick => quick,
            None if self.place.against.is_some() => other::ROUNDS,
            None => full,
        }
    }

    /// Measures all contenders in turn, round after round.
    pub fn measure(&mut self, measurement: &Measurement) -> Vec<(Contender, Rounds)> {
        let contenders = self.contenders(measurement).into_iter();
        let mut all: Vec<(Contender, Rounds)> = contenders
            .map(|contender| (contender, Rounds::default()))
            .collect();
        let rounds = self.rounds_of(measurement);
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
                        self.workers.remove(contender);
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

    /// The worker of this contender, started when it is first needed.
    fn worker(&mut self, contender: &Contender) -> Result<&mut Worker> {
        if !self.workers.contains_key(contender) {
            let worker = self.start(contender, &[])?;
            self.workers.insert(*contender, worker);
        }
        self.workers
            .get_mut(contender)
            .ok_or_else(|| anyhow!("{} has no worker", contender.name))
    }

    /// A new worker, ready for requests.
    ///
    /// # Errors
    /// When it cannot be started; the text says why, and the fix.
    pub fn start(&mut self, contender: &Contender, more: &[String]) -> Result<Worker> {
        let mut worker = Worker::start(contender, &self.place, more)?;
        let ready = worker.ready()?;
        let mut name = contender.name.to_owned();
        match contender.against {
            true => name = format!("{name} {}", contender.arguments.join(" ")),
            false => self.versions.extend(ready.versions),
        }
        self.settings
            .insert(name.trim_end().to_owned(), ready.settings);
        Ok(worker)
    }

    /// Ends the workers that no later measurement needs.
    pub fn keep_for(&mut self, later: &[&Measurement]) {
        let asks = later.iter().filter(|later| later.way == Way::Ask);
        let needed: HashSet<Contender> = asks.flat_map(|later| self.contenders(later)).collect();
        self.workers
            .retain(|contender, _| needed.contains(contender));
    }
}
