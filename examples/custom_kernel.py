"""Custom kernel: run a WGSL compute shader on tensors, without adding it to the package.

(To add a kernel to the package, see CONTRIBUTING.md.)
"""

import wgpu

import gpt2_wgpu as gw

SQUARED_RELU = """
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= arrayLength(&x)) { return; }
  let positive = max(x[id.x], 0.0);
  result[id.x] = positive * positive;
}
"""

device = gw.default_device()
gpu = device.gpu  # wgpu's device: any call of wgpu-py works beside this package
module = gpu.create_shader_module(code=SQUARED_RELU)
pipeline = gpu.create_compute_pipeline(
    layout=wgpu.AutoLayoutMode.auto, compute={"module": module, "entry_point": "main"}
)


def squared_relu(x: gw.Tensor) -> gw.Tensor:
    """max(x, 0)² for every element of `x`."""
    result = gw.tensors.empty(device, x.shape)  # from the buffer pool, with arbitrary contents
    # `buffer` submits pending operations first, so the kernel sees their results. Buffers from the
    # pool may be longer than the tensor, so the size is stated.
    entries = [
        {"binding": index, "resource": {"buffer": tensor.buffer, "size": tensor.nbytes}}
        for index, tensor in enumerate((x, result))
    ]
    group = gpu.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = gpu.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(-(-x.size // 64))
    compute.end()
    gpu.queue.submit([encoder.finish()])
    return result


with gw.tidy():
    x = gw.tensor([[-1.0, 2.0], [0.5, -3.0]])
    y = squared_relu(x * 2.0)
    print(y.tolist())
