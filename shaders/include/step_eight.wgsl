// Steps of linear_gemv.wgsl through stored weights of any format: a group of eight at a time.
//
// Provides: Step, GROUPS, step_at, group_of
// Needs:    nothing

//!include "weight_{weight}.wgsl"

alias Step = mat2x4<f32>;
const GROUPS: u32 = 1u; // groups of eight in a step

fn step_at(i: u32) -> Step { return weights8(i); }
fn group_of(step: Step, g: u32) -> mat2x4<f32> { return step; }
