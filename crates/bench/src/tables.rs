//! Numbers that make tables of their own: throughput by batch size and threads, and trainings at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::contender::Worker;
use crate::memory;
use crate::programs::{Contender, OURS_FLOAT32, OURS_MIXED};
use crate::rounds::Session;
use crate::stats::median;
use crate::text::number;

/// Batch sizes, with the steps that are timed for each.
const BATCHES: [(usize, usize); 5] = [(1, 300), (8, 150), (32, 80), (128, 40), (512, 12)];
/// How often each cell of the table is measured.
const ROUNDS: usize = 3;
/// How many trainings run at once.
const TRAININGS: [usize; 3] = [1, 2, 4];
/// How long they may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the memory of running trainings is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Fills the table of this name: a list of rows.
///
/// # Errors
/// When one of our own workers fails, or a name is not a table's.
pub fn fill(name: &str, session: &mut Session) -> Result<Value> {
    match name {
        "throughput" => throughput(session),
        "trainings_at_once" => trainings_at_once(session),
        other => bail!("no table {other}"),
    }
}

/// Images a second by precision, threads and batch size.
fn throughput(session: &mut Session) -> Result<Value> {
    let all_threads = session.place.threads;
    let batches = if session.quick {
        &BATCHES[3..4]
    } else {
        &BATCHES
    };
    let rounds = if session.quick { 1 } else { ROUNDS };
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for contender in [OURS_FLOAT32, OURS_MIXED] {
            // libtorch makes its threads once, so each number of threads is a process of its own.
            session.place.threads = threads;
            let started = session.start(&contender, &[]);
            session.place.threads = all_threads;
            let mut worker = started?;
            for &(batch, steps) in batches {
                let (warmup, steps) = if session.quick {
                    (1, 2)
                } else {
                    (steps.min(10), steps)
                };
                let request = json!({"run": "cnn_train", "batch": batch, "warmup": warmup,
                    "steps": steps, "threads": threads});
                let values = (0..rounds)
                    .map(|_| Ok(worker.ask(&request)?.value))
                    .collect::<Result<Vec<f64>>>()?;
                let value = median(&values).context("no rounds")?;
                println!(
                    "  {}, {threads} threads, batch {batch}: {} images/s",
                    contender.name,
                    number(value)
                );
                rows.push(json!({"contender": contender.name, "threads": threads,
                    "batch": batch, "images_per_second": value}));
            }
        }
    }
    Ok(Value::Array(rows))
}

/// Memory and images a second of several trainings that run side by side.
fn trainings_at_once(session: &mut Session) -> Result<Value> {
    let trainings = if session.quick {
        &TRAININGS[..2]
    } else {
        &TRAININGS
    };
    let mut rows = Vec::new();
    for &count in trainings {
        let row = at_once(session, &OURS_MIXED, count)?;
        println!(
            "  {count} at once: {} images/s in all, {} MB in all",
            number(row["images_per_second"].as_f64().unwrap_or(f64::NAN)),
            row["memory_mb"].as_f64().map_or("?".to_owned(), number),
        );
        rows.push(row);
    }
    Ok(Value::Array(rows))
}

fn at_once(session: &mut Session, contender: &Contender, count: usize) -> Result<Value> {
    let mut workers = (0..count)
        .map(|_| session.start(contender, &[]))
        .collect::<Result<Vec<Worker>>>()?;
    let (warmup, steps) = if session.quick { (1, 3) } else { (10, 80) };
    let request = session
        .request(json!({"run": "cnn_train", "batch": 128, "warmup": warmup, "steps": steps}));
    workers
        .iter_mut()
        .try_for_each(|worker| worker.send(&request))?;
    let mut rates: Vec<Option<f64>> = vec![None; count];
    let mut memory: Option<f64> = None;
    let began = Instant::now();
    while rates.iter().any(Option::is_none) {
        ensure!(
            began.elapsed() < LIMIT,
            "{count} trainings at once took more than {} s",
            LIMIT.as_secs()
        );
        for (worker, rate) in workers.iter_mut().zip(&mut rates) {
            if rate.is_none() {
                let limit = LOOK / count as u32;
                *rate = worker.answer(&request, limit)?.map(|reply| reply.value);
            }
        }
        let shares = workers.iter().map(|worker| memory::share(worker.id()));
        if let Ok(shares) = shares.collect::<Result<Vec<f64>>>() {
            memory = Some(shares.iter().sum::<f64>().max(memory.unwrap_or(0.0)));
        }
    }
    let rates: Vec<f64> = rates.into_iter().flatten().collect();
    Ok(json!({"trainings": count, "memory_mb": memory,
        "images_per_second": rates.iter().sum::<f64>(), "each": rates}))
}
