//! The two precisions that a network can compute in.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use serde::{Deserialize, Serialize};
use tch::Kind;

/// The precision in which a network computes. Its weights are `float32` in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Everything in `float32`.
    Float32,
    /// Layers compute in `bfloat16` (8 significant bits), the loss and the updates of the weights in `float32`. This is
    /// about twice as fast where the CPU has instructions for `bfloat16`.
    Mixed,
}

impl Precision {
    /// [`Mixed`](Precision::Mixed) where the CPU has instructions for `bfloat16`, [`Float32`](Precision::Float32) elsewhere.
    pub fn of_this_cpu() -> Precision {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512bf16") {
            return Precision::Mixed;
        }
        Precision::Float32
    }

    /// The kind of the tensors that a network computes with in this precision.
    pub fn kind(self) -> Kind {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_others_refused() {
        assert_eq!("mixed".parse::<Precision>().unwrap(), Precision::Mixed);
        assert_eq!("float32".parse::<Precision>().unwrap(), Precision::Float32);
        let error = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(
            error,
            "the precision is `fp8`; expected `float32` or `mixed`"
        );
        assert_eq!(Precision::Mixed.kind(), Kind::BFloat16);
    }
}
