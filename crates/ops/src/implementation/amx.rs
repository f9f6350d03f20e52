//! Whether this process may use AMX.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Whether the CPU multiplies matrices of `bfloat16` numbers (AMX) and converts vectors to `bfloat16`, and the operating
/// system gives this process the registers for the matrices.
///
/// The first call asks the operating system for them, for all threads of this process.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        is_x86_feature_detected!("avx512bf16") && cpu_has_amx() && system_grants_registers()
    })
}

/// AMX for `bfloat16`, as the CPU says it. (The standard library does not ask for it yet in stable Rust.)
fn cpu_has_amx() -> bool {
    const FEATURES: u32 = 7;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let both = AMX_BF16 | AMX_TILE;
    __cpuid(0).eax >= FEATURES && __cpuid_count(FEATURES, 0).edx & both == both
}

/// Asks Linux for the registers, 8 KB that it saves for threads only where a process has asked for it.
#[cfg(target_os = "linux")]
fn system_grants_registers() -> bool {
    use std::ffi::c_long;
    const ARCH_PRCTL: c_long = 158;
    const ARCH_REQ_XCOMP_PERM: c_long = 0x1023;
    const XFEATURE_XTILEDATA: c_long = 18;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long; // of the C library, which the standard library links anyway
    }
    // SAFETY: this request takes two numbers and touches no memory of the process.
    unsafe { syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// How to ask other systems is not known here.
#[cfg(not(target_os = "linux"))]
fn system_grants_registers() -> bool {
    false
}
