// Logit maxima and token counts of a row, in one buffer, kept from step to step: first, for each
// CHUNK of its candidates, the rank of the largest logit (0 before a step); then, where
// maxima_and_counts_width is more than the number of chunks, for each candidate its number of
// occurrences among the new tokens, with the bit OF_PROMPT if it is in the prompt, and BANNED if it
// is not chosen in this step, or FORCED if it is one of the only ones that may be
// (exclude_tokens.wgsl); or EXCLUDED if it is never chosen.
//
// Provides: HAS_PENALTIES, CHUNK, OF_PROMPT, EXCLUDED, BANNED, FORCED, chunks_of, count_at
// Needs:    nothing

override HAS_PENALTIES: bool = false; // of store_logits.wgsl: the counts lower logits

const CHUNK: u32 = 256u;
const OF_PROMPT: u32 = 0x80000000u;
const EXCLUDED: u32 = 0x40000000u;
const BANNED: u32 = 0x20000000u;
const FORCED: u32 = 0x10000000u;

fn chunks_of(candidates: u32) -> u32 { return (candidates + CHUNK - 1u) / CHUNK; }
fn count_at(token: u32, candidates: u32) -> u32 { return chunks_of(candidates) + token; }
