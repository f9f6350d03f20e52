//! The check of an exercise.

/// Checks an exercise: prints `Yes`, or `Not yet` with the hint of the first condition that fails.
///
/// ```
/// use diffusion::prelude::*;
///
/// let level = 0.7;
/// check(&[(level > 0.5, "choose a level above 0.5"), (level <= 1.0, "and at most 1.0")]);
/// ```
pub fn check(conditions: &[(bool, &str)]) {
    println!("{}", verdict(conditions));
}

fn verdict(conditions: &[(bool, &str)]) -> String {
    match conditions.iter().find(|(holds, _)| !holds) {
        None => "Yes — that is it.".to_owned(),
        Some((_, hint)) => format!("Not yet: {hint}"),
    }
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
}
