//! The instruction sets that can be tested on this CPU.

#[cfg(target_arch = "x86_64")]
mod amx;

use tealight_kernels::Isa;

/// The instruction sets of this CPU, and emulated AMX if it has none.
pub fn available_isas() -> Vec<Isa> {
    let available = Isa::available();
    #[cfg(target_arch = "x86_64")]
    if Isa::from_name("amx").is_err() {
        return available.into_iter().chain(amx::emulated()).collect();
    }
    available
}
