//! Prompt prefix caching: the keys and values of recent sequences.

use crate::families::llama::Sequence;
use std::sync::{Mutex, PoisonError};

/// Maximum number of cached sequences.
const MAX_SEQUENCES: usize = 4;

/// Recent sequences, the latest last.
#[derive(Debug, Default)]
pub(super) struct PrefixCache(Mutex<Vec<Sequence>>);

impl PrefixCache {
    /// The longest common prefix of `tokens` and a cached sequence, without the last of `tokens`; `None` if no sequence has the
    /// first token.
    ///
    /// If at least half of the cached sequence is used, it is taken out of the cache; otherwise it stays there, and a copy of the
    /// prefix is returned.
    pub(super) fn restore(&self, tokens: &[u32]) -> Option<Sequence> {
        let common = |cached: &Sequence| cached.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (index, count) = cached.iter().map(common).enumerate().max_by_key(|(_, count)| *count)?;
        if count == 0 {
            return None;
        }
        let usable = count.min(tokens.len().saturating_sub(1));
        if 2 * count < cached[index].tokens().len() {
            return Some(cached[index].clone_prefix(usable));
        }
        let mut sequence = cached.remove(index);
        sequence.truncate(usable);
        Some(sequence)
    }

    /// Adds a sequence, and drops the oldest ones beyond [`MAX_SEQUENCES`] sequences or `max_tokens` tokens in total.
    pub(super) fn store(&self, mut sequence: Sequence, max_tokens: usize) {
        sequence.shrink_to_fit();
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.push(sequence);
        let total = |cached: &[Sequence]| cached.iter().map(|s| s.tokens().len()).sum::<usize>();
        while cached.len() > MAX_SEQUENCES || cached.len() > 1 && total(&cached) > max_tokens {
            cached.remove(0);
        }
    }
}
