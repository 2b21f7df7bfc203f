// Stored weights as a lane of linear_gemv.wgsl reads them: a group of eight at a time, of any format.

//!include "weight_{weight}.wgsl"

alias Step = mat2x4<f32>;
const GROUPS: u32 = 1u; // groups of eight in a step

fn step_at(i: u32) -> Step { return weights8(i); }
fn group_of(step: Step, g: u32) -> mat2x4<f32> { return step; }
