//! Pseudo-random numbers.

/// Returns a number in [0, 1) and advances `state` (splitmix64, Steele et al. 2014). The same seed gives the same sequence on every
/// platform, so results that depend on it are reproducible.
pub fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}
