/// Sample rate of all decoded audio, in Hz.
pub const SAMPLE_RATE: usize = 16_000;
