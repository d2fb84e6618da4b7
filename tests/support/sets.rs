//! Every instruction set that can be tested here.

#[cfg(target_arch = "x86_64")]
mod amx;

use tealight_kernels::Isa;

/// Every set of this CPU, and AMX emulated where it has none.
pub fn sets() -> Vec<Isa> {
    let available = Isa::available();
    #[cfg(target_arch = "x86_64")]
    if Isa::from_name("amx").is_err() {
        return available.into_iter().chain(amx::emulated()).collect();
    }
    available
}
