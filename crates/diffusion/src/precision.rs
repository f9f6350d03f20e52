//! The two precisions that a network can compute in.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};
use tch::Kind;

/// The precision in which a network computes. Its weights are `float32` in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Everything in `float32`.
    Float32,
    /// Layers compute in `bfloat16` (8 significant bits), the loss and the weights' updates in
    /// `float32`: about twice as fast where the CPU has instructions for it.
    Mixed,
}

impl Precision {
    /// Mixed where the CPU computes in `bfloat16` itself, `float32` elsewhere.
    pub fn of_this_cpu() -> Precision {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512bf16") {
            return Precision::Mixed;
        }
        Precision::Float32
    }

    /// The kind of tensor that a network gets in this precision.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Precision::Float32 => Kind::Float,
            Precision::Mixed => Kind::BFloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Float32 => "float32",
            Precision::Mixed => "mixed bfloat16 and float32",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// `float32` or `mixed`.
    fn from_str(text: &str) -> Result<Precision> {
        match text {
            "float32" => Ok(Precision::Float32),
            "mixed" => Ok(Precision::Mixed),
            _ => bail!("the precision is `{text}`; expected `float32` or `mixed`"),
        }
    }
}
