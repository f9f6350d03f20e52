//! Another commit of this project as one more contender.
//!
//! `lab bench --against <commit>` checks the commit out, builds it, and describes in a file what to start ([`Other`]). The other commit's
//! program and scripts run as they are, in their own environment; the protocol of [`crate::contender`] is all that must agree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::programs::Contender;

/// The contender's name in tables and reports.
pub const NAME: &str = "against";
/// How many rounds there are by default.
pub const ROUNDS: usize = 15;

/// Where the other commit's programs are.
#[derive(Clone, Debug, Deserialize)]
pub struct Other {
    /// The full name of the commit.
    pub commit: String,
    /// Its `bench`.
    pub bench: PathBuf,
    /// Its scripts, as in `crates/bench/python`.
    pub scripts: PathBuf,
    /// Its Python with Jupyter and its kernel; none where no kernel is measured.
    pub jupyter: Option<PathBuf>,
    /// Its first weights.
    pub data: PathBuf,
    /// Where its logs go.
    pub out: PathBuf,
    /// What differs in its environment from ours; null where a variable is not set there.
    #[serde(default)]
    pub environment: BTreeMap<String, Option<String>>,
}

impl Other {
    /// Reads the description.
    ///
    /// # Errors
    /// If the file cannot be read, or something is missing in it.
    pub fn read(path: &Path) -> Result<Other> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: `lab bench` writes it", path.display()))?;
        let other: Other = serde_json::from_str(&text)
            .with_context(|| format!("{} does not describe a commit", path.display()))?;
        fs::create_dir_all(&other.out)
            .with_context(|| format!("cannot make the folder {}", other.out.display()))?;
        Ok(other)
    }
}

/// The contender that stands for the other commit where this one stands for ours.
pub fn other_than(ours: &Contender) -> Contender {
    Contender {
        name: NAME,
        against: true,
        ..*ours
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_that_describes_no_commit_is_an_error() {
        let error = Other::read(Path::new("Cargo.toml")).unwrap_err();
        assert!(format!("{error:#}").contains("does not describe a commit"));
    }
}
