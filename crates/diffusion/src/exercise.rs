//! The check of an exercise.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Where a class's hub wants to know which exercises were tried and solved; nobody else sets it.
const PROGRESS: &str = "LESSON_PROGRESS";
/// The notebook of a kernel, as Jupyter's server names it.
const NOTEBOOK: &str = "JPY_SESSION_NAME";

/// Checks an exercise: prints `Yes`, or `Not yet` with the hint of the first condition that fails.
///
/// In a class it also adds a line to a file in the learner's folder, from which the teacher's page takes who has solved what.
///
/// ```
/// use diffusion::prelude::*;
///
/// let level = 0.7;
/// check(&[(level > 0.5, "choose a level above 0.5"), (level <= 1.0, "and at most 1.0")]);
/// ```
pub fn check(conditions: &[(bool, &str)]) {
    println!("{}", verdict(conditions));
    if let Some(progress) = env::var_os(PROGRESS).filter(|path| !path.is_empty()) {
        let notebook = env::var(NOTEBOOK).unwrap_or_default();
        // What cannot be noted takes nothing from the exercise.
        let file = File::options().append(true).create(true).open(progress);
        let _ = file.and_then(|mut file| file.write_all(line(&notebook, conditions).as_bytes()));
    }
}

fn verdict(conditions: &[(bool, &str)]) -> String {
    match conditions.iter().find(|(holds, _)| !holds) {
        None => "Yes — that is it.".to_owned(),
        Some((_, hint)) => format!("Not yet: {hint}"),
    }
}

/// The notebook, whether the exercise is solved, and the hints, by which the exercise is known; between tabs.
fn line(notebook: &str, conditions: &[(bool, &str)]) -> String {
    let name = Path::new(notebook).file_name().unwrap_or_default();
    let solved = conditions.iter().all(|(holds, _)| *holds);
    let verdict = if solved { "solved" } else { "tried" };
    let words = [&*name.to_string_lossy(), verdict].map(str::to_owned);
    let hints = conditions.iter().map(|(_, hint)| hint.to_string());
    let plain = words
        .into_iter()
        .chain(hints)
        .map(|word| word.replace(['\t', '\n'], " "));
    plain.collect::<Vec<_>>().join("\t") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_names_the_first_hint_that_applies() {
        assert!(verdict(&[(true, "a"), (true, "b")]).starts_with("Yes"));
        assert_eq!(
            verdict(&[(true, "a"), (false, "b"), (false, "c")]),
            "Not yet: b"
        );
    }

    #[test]
    fn a_line_of_progress_names_notebook_verdict_and_hints() {
        let tried = line("week 1/00_rust.ipynb", &[(true, "a"), (false, "b\tc")]);
        assert_eq!(tried, "00_rust.ipynb\ttried\ta\tb c\n");
        assert_eq!(line("", &[(true, "a")]), "\tsolved\ta\n");
    }
}
