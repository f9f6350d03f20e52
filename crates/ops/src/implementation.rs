//! Which implementation of the operations a process uses.

#[cfg(target_arch = "x86_64")]
mod amx;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Error, Result, anyhow};

/// The environment variable that overrides the choice.
const VARIABLE: &str = "OPS_IMPLEMENTATION";

/// The ways in which this crate can compute an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// The kernels of this crate: convolutions in `bfloat16` by the CPU's units for products of matrices (AMX), everything
    /// else as with `Avx512`.
    Amx,
    /// The kernels of this crate, in vectors of 16 numbers (AVX-512).
    Avx512,
    /// The kernels of this crate, in vectors of 8 numbers (AVX2 and FMA).
    Avx2,
    /// libtorch's own operations. They work on every CPU.
    Libtorch,
}

impl Implementation {
    const ALL: [Implementation; 4] = [
        Implementation::Amx,
        Implementation::Avx512,
        Implementation::Avx2,
        Implementation::Libtorch,
    ];

    /// The implementation that all operations of this process use: the one that the environment variable
    /// `OPS_IMPLEMENTATION` names (`amx`, `avx512`, `avx2` or `libtorch`), or else the fastest that this CPU has. The variable
    /// is read once, at the first call.
    ///
    /// # Errors
    /// An unknown value of the variable, or an implementation that this CPU lacks. The error names the value and
    /// the implementations that would work.
    pub fn selected() -> Result<Implementation> {
        #[cfg(test)]
        if let Some(implementation) = tests::OVERRIDE.get() {
            return Ok(implementation);
        }
        static SELECTED: OnceLock<Result<Implementation, String>> = OnceLock::new();
        let selected = SELECTED.get_or_init(|| {
            let value = std::env::var_os(VARIABLE);
            let value = value.as_ref().map(|value| value.to_string_lossy());
            select(value.as_deref(), &Implementation::available())
        });
        selected.clone().map_err(Error::msg)
    }

    /// All implementations that this CPU has, the fastest first.
    pub fn available() -> Vec<Implementation> {
        let all = Implementation::ALL.into_iter();
        all.filter(|implementation| implementation.is_available())
            .collect()
    }

    /// Whether this CPU has the instructions of this implementation, and the operating system lets this process use them.
    pub(crate) fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Implementation::Amx => Implementation::Avx512.is_available() && amx::is_available(),
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Implementation::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Implementation::Amx | Implementation::Avx512 | Implementation::Avx2 => false,
            Implementation::Libtorch => true,
        }
    }
}

/// The implementation that `value` names, or the first of `available` if there is no value.
fn select(value: Option<&str>, available: &[Implementation]) -> Result<Implementation, String> {
    let expected = || {
        let names: Vec<String> = available.iter().map(|one| format!("`{one}`")).collect();
        names.join(" or ")
    };
    let Some(value) = value else {
        return Ok(*available.first().unwrap_or(&Implementation::Libtorch));
    };
    match value.parse::<Implementation>() {
        Ok(implementation) if available.contains(&implementation) => Ok(implementation),
        Ok(_) => Err(format!(
            "{VARIABLE} is `{value}`, and this CPU lacks these instructions; expected {}",
            expected()
        )),
        Err(_) => Err(format!(
            "{VARIABLE} is `{value}`, which is not an implementation; expected {} (or leave the variable unset)",
            expected()
        )),
    }
}

impl fmt::Display for Implementation {
    /// The name that the environment variable takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Implementation::Amx => "amx",
            Implementation::Avx512 => "avx512",
            Implementation::Avx2 => "avx2",
            Implementation::Libtorch => "libtorch",
        })
    }
}

impl FromStr for Implementation {
    type Err = Error;

    /// `amx`, `avx512`, `avx2` or `libtorch`.
    fn from_str(text: &str) -> Result<Implementation> {
        let mut all = Implementation::ALL.into_iter();
        all.find(|implementation| implementation.to_string() == text)
            .ok_or_else(|| {
                anyhow!(
                    "the implementation is `{text}`; expected `amx`, `avx512`, `avx2` or `libtorch`"
                )
            })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// The implementation that a test selects for its own thread.
        pub(super) static OVERRIDE: Cell<Option<Implementation>> = const { Cell::new(None) };
    }

    /// Runs a test in each implementation that this CPU has, the fallback included.
    pub(crate) fn in_each_implementation(test: impl Fn()) {
        for implementation in Implementation::available() {
            println!("with {implementation}");
            OVERRIDE.set(Some(implementation));
            test();
            OVERRIDE.set(None);
        }
    }

    #[test]
    fn the_fastest_is_selected_unless_the_variable_names_another() {
        let all = Implementation::ALL;
        for (first, fastest) in all.into_iter().enumerate() {
            assert_eq!(select(None, &all[first..]), Ok(fastest));
        }
        for implementation in all {
            let name = implementation.to_string();
            assert_eq!(select(Some(&name), &all), Ok(implementation));
        }
    }

    #[test]
    fn a_value_that_is_unknown_or_unavailable_is_an_error_that_names_it() {
        let error = select(Some("sse"), &Implementation::ALL).unwrap_err();
        assert_eq!(
            error,
            "OPS_IMPLEMENTATION is `sse`, which is not an implementation; expected `amx` or `avx512` or `avx2` or `libtorch` (or leave the variable unset)"
        );
        let error = select(Some("avx512"), &Implementation::ALL[3..]).unwrap_err();
        assert_eq!(
            error,
            "OPS_IMPLEMENTATION is `avx512`, and this CPU lacks these instructions; expected `libtorch`"
        );
        assert!("AVX2".parse::<Implementation>().is_err());
    }

    #[test]
    fn libtorch_is_available_everywhere() {
        let available = Implementation::available();
        assert_eq!(available.last(), Some(&Implementation::Libtorch));
    }
}
